//! lsb-validate
