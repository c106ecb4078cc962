//! End-to-end tests: the real binary, real worker processes, real files, real sockets. One binary, so that it links once.

mod capture;
mod cli;
mod crash;
mod faults;
mod support;
