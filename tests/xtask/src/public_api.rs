//! The public API of drivers/api, as a listing under version control: a change of it is seen in review.

mod listing;
mod surface;

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};

const CRATE: &str = "drivers/api/src";
const LISTING: &str = "drivers/api/public-api.txt";

/// Fails where the listing is not what the source gives, and prints the lines that differ.
pub(crate) fn check(root: &Path) -> Result<()> {
    let now = listing::of(&root.join(CRATE))?;
    let path = root.join(LISTING);
    let listed = fs::read_to_string(&path).with_context(|| format!("cannot read {LISTING}: {REMEDY}"))?;
    if listed == now {
        println!("{LISTING} is up to date");
        return Ok(());
    }
    for line in difference(&listed, &now) {
        println!("{line}");
    }
    bail!("the public API of drivers/api is not as {LISTING} has it: {REMEDY}");
}

const REMEDY: &str = "if that is meant, run `cargo xtask public-api --bless`, and review and commit the difference";

/// Writes the listing anew.
pub(crate) fn bless(root: &Path) -> Result<()> {
    let now = listing::of(&root.join(CRATE))?;
    fs::write(root.join(LISTING), now).with_context(|| format!("cannot write {LISTING}"))
}

/// What was removed and added, by longest common subsequence.
fn difference(old: &str, new: &str) -> Vec<String> {
    let (old, new): (Vec<_>, Vec<_>) = (old.lines().collect(), new.lines().collect());
    let mut common = vec![vec![0_u32; new.len() + 1]; old.len() + 1];
    for i in (0..old.len()).rev() {
        for j in (0..new.len()).rev() {
            common[i][j] =
                if old[i] == new[j] { common[i + 1][j + 1] + 1 } else { common[i + 1][j].max(common[i][j + 1]) };
        }
    }
    let (mut i, mut j, mut lines) = (0, 0, Vec::new());
    while i < old.len() || j < new.len() {
        if i < old.len() && j < new.len() && old[i] == new[j] {
            (i, j) = (i + 1, j + 1);
        } else if j == new.len() || (i < old.len() && common[i + 1][j] >= common[i][j + 1]) {
            lines.push(format!("- {}", old[i]));
            i += 1;
        } else {
            lines.push(format!("+ {}", new[j]));
            j += 1;
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::difference;

    #[test]
    fn a_difference_names_what_went_and_what_came() {
        assert_eq!(difference("a\nb\nc\n", "a\nx\nc\nd\n"), ["- b", "+ x", "+ d"]);
        assert!(difference("a\nb\n", "a\nb\n").is_empty());
    }
}
