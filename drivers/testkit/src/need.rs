//! What a test needs of the machine, and what becomes of it where that is missing.

/// Whether this process may mount and make devices. Where it may not, says on stderr that `test` is skipped and why;
/// with `DUNNAGE_REQUIRE_ALL=1` in the environment that is a failure.
///
/// # Panics
/// Without root where everything is required to run.
#[must_use]
#[expect(clippy::print_stderr, reason = "the output of a test is where its reader looks for why it was skipped")]
pub fn needs_root(test: &str) -> bool {
    if rustix::process::geteuid().is_root() {
        return true;
    }
    let why = format!("skipped: {test} needs root, and this is user {}", rustix::process::geteuid());
    assert!(std::env::var_os("DUNNAGE_REQUIRE_ALL").is_none_or(|all| all != "1"), "{why}");
    eprintln!("{why}");
    false
}
