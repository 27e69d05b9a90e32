//! Watches (skeleton of the interface).
