//! The store of bytes, by what it promises.
