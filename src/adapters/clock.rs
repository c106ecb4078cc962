//! The clocks: the wall, and a recording.
