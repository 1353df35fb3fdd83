//! lsb-model
