//! Text from outside in messages.

use std::fmt;

/// The longest text that is shown whole, in bytes: what CSI allows for a string.
const WHOLE: usize = 128;
/// How much of a longer one is shown, in characters.
const START: usize = 32;

/// A text from outside as a message shows it: quoted, and of a long one the beginning and the length, so that nobody
/// fills a log with one request.
pub(crate) struct Quoted<'a>(pub(crate) &'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.0;
        if text.len() <= WHOLE {
            return write!(f, "{text:?}");
        }
        let start: String = text.chars().take(START).collect();
        write!(f, "{start:?}… ({} bytes)", text.len())
    }
}

#[cfg(test)]
mod tests {
    use crate::{
        BackendName, ForeignId, FsType, Generation, InstanceId, NodeName, StagingPath, TargetPath, VolumeId, VolumeKey,
    };

    #[test]
    fn no_error_about_a_text_is_as_long_as_the_text() {
        let (name, path) = ("é".repeat(50_000), format!("/../{}", "x".repeat(100_000)));
        for message in [
            name.parse::<BackendName>().unwrap_err().report(),
            name.parse::<NodeName>().unwrap_err().report(),
            name.parse::<InstanceId>().unwrap_err().report(),
            name.parse::<Generation>().unwrap_err().report(),
            name.parse::<VolumeKey>().unwrap_err().report(),
            name.parse::<FsType>().unwrap_err().report(),
            name.parse::<VolumeId>().unwrap_err().to_string(),
            ForeignId(name.clone()).to_string(),
            StagingPath::new(&path).unwrap_err().report(),
            TargetPath::new(&name).unwrap_err().report(),
        ] {
            assert!(message.len() < 400, "{} bytes: {}", message.len(), &message[..message.floor_char_boundary(400)]);
            assert!(message.contains("00000 bytes") || message.contains("100004 bytes"), "{message}");
        }
    }

    #[test]
    fn a_text_that_may_be_as_long_is_shown_whole() {
        let name = "x".repeat(128);
        assert!(name.parse::<InstanceId>().unwrap_err().report().contains(&name));
    }
}
