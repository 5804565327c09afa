//! Volumes that are image files on loop devices.
