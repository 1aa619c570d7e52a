//! Empty: this package is its test, `lab/main.rs`.
