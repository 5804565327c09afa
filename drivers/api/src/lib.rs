//! The contract between the Dunnage host and a storage driver.
