//! The backends that are configured, those that are open, and the plugins they stand behind.
