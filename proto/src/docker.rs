//! The Docker Engine API's documents and version rules.
