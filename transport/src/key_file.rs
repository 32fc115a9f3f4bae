//! The file that holds an installation's key.
