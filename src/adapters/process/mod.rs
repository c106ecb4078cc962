//! Engines in worker processes over stdin and stdout.
