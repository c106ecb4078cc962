//! What the tests of this folder stand on: a model of the live system.

pub(super) mod model;
