//! Receipts from a capture file.
