//! The least driver: folders below a root. Everything that CSI asks beyond it is the host's.
//!
//! `docs/write-a-driver.md` walks through it. Its `main` is a whole program with every command.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use dunnage_driver_api::root::{Folder, Record, Records, Root};
use dunnage_driver_api::{
    Backend, Bytes, Context, Create, CreateVolume, DirectorySource, Driver, DriverEntry, Error, Finding, Init,
    KeyError, NoParameters, Node, Opening, ParameterType, Reach, Result, Source, SourceRequest, Staging, Volume,
    VolumeKey, Volumes,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

fn main() -> ExitCode {
    dunnage::main([DriverEntry::of::<Minimal>()])
}

/// The configuration of a backend: its fields are the keys in the YAML, these comments their documentation.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Minimal {
    /// The folder that holds everything, absolute.
    root: PathBuf,
}

impl Driver for Minimal {
    const NAME: &'static str = "minimal";

    fn check_keys(&self) -> Result<(), KeyError> {
        Root::check_key(&self.root)
    }

    fn init(&self, _: &Opening) -> Result<Init> {
        Root::init(&self.root, Self::NAME)
    }

    fn open(&self, _: &Opening) -> Result<Backend> {
        let root = Root::open(&self.root, Self::NAME)?;
        let records = root.records()?;
        let data = root.data("data", &records)?;
        let instance = root.instance().clone();
        let store = Arc::new(Store { root, data, records });
        Ok(Backend::new(instance, Reach::Node, ParameterType::of::<NoParameters>())
            .with_volumes(store.clone())
            .with_create(store.clone())
            .with_node(store, Staging::None))
    }

    fn check(&self, _: &Opening) -> Vec<Finding> {
        Root::check(&self.root, Self::NAME)
    }
}

struct Store {
    root: Root,
    data: Folder,
    records: Records<Own>,
}

/// What this driver keeps of a volume beside what the host gives it.
#[derive(Serialize, Deserialize)]
struct Own {}

impl Volumes for Store {
    fn find(&self, _: &Context, key: &VolumeKey) -> Result<Option<Volume>> {
        Ok(self.records.get(key)?.map(|record| record.volume))
    }

    fn list(&self, _: &Context, after: Option<&VolumeKey>, limit: usize) -> Result<Vec<Volume>> {
        self.records.page(after, limit)
    }
}

impl Create for Store {
    fn create(&self, _: &Context, request: &CreateVolume) -> Result<Volume> {
        let volume = request.volume(request.capacity.choose(Bytes::new(1 << 30), 1)?)?;
        // The data first and the record last: with its record the volume exists.
        self.data.make_empty(request.key.as_str(), 0o777)?;
        self.records.put(&Record { volume: volume.clone(), extra: Own {} })?;
        Ok(volume)
    }

    fn delete(&self, _: &Context, volume: &Volume) -> Result<()> {
        self.root.trash().discard(&self.data, volume.key.as_str())?;
        self.records.remove(&volume.key)
    }

    fn is_half_deleted(&self, _: &Context, volume: &Volume) -> Result<bool> {
        self.data.contains(volume.key.as_str()).map(|found| !found)
    }
}

impl Node for Store {
    fn source(&self, _: &Context, request: &SourceRequest<'_>) -> Result<Source> {
        let key = &request.volume.key;
        match self.records.get(key)? {
            Some(record) if record.volume.generation == request.volume.generation => {}
            _ => return Err(Error::not_found(format!("there is no volume {}", request.volume))),
        }
        let directory = self.data.open_path(key.as_str()).map_err(self.data.failed("open", key.as_str()))?;
        Ok(Source::Directory(DirectorySource::new(directory)))
    }
}
