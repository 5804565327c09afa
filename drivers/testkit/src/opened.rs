//! A driver that is called as the host calls it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use dunnage_driver_api::{
    Backend, CapacityRange, Commands, Context, CreateVolume, Driver, Error, Expanded, Fingerprint, Opening, Parameters,
    Result, Volume, VolumeKey,
};

/// How long a call has.
const TIME: Duration = Duration::from_secs(60);

/// An opened backend, whose volumes are made and removed as the host does it: a volume is looked for before it is made,
/// and what a delete left is removed first. For tests of the driver alone; `conformance` is for all.
pub struct Opened {
    /// What the driver handed out.
    pub backend: Backend,
    commands: Arc<dyn Commands>,
}

impl Opened {
    /// Marks the place where that is to be done, and opens it.
    ///
    /// # Errors
    /// Those of the driver.
    pub fn new(driver: &impl Driver, commands: Arc<dyn Commands>) -> Result<Self> {
        let opening = Opening::new("tested".parse()?, "node".parse()?, commands.clone());
        driver.init(&opening)?;
        Ok(Self { backend: driver.open(&opening)?, commands })
    }

    /// The context of a call.
    pub fn cx(&self) -> Context {
        Context::new(TIME, self.commands.clone())
    }

    /// A volume of at least so many bytes: the one that is there, or a new one.
    ///
    /// # Errors
    /// Those of the driver.
    pub fn create(&self, name: &str, bytes: u64) -> Result<Volume> {
        let capacity = CapacityRange::new(bytes.cast_signed(), 0)?;
        let fingerprint = Fingerprint::of(&BTreeMap::new());
        let request = CreateVolume::new(name, capacity, Vec::new(), Parameters::default(), fingerprint);
        let (cx, create) = (self.cx(), of(&self.backend.create, "makes no volumes")?);
        match self.find(&request.key)? {
            Some(remains) if create.is_half_deleted(&cx, &remains)? => create.delete(&cx, &remains)?,
            Some(existing) => return Ok(existing),
            None => {}
        }
        create.create(&cx, &request)
    }

    /// Makes a volume at least as large.
    ///
    /// # Errors
    /// Those of the driver; NotFound where the volume is gone.
    pub fn expand(&self, volume: &Volume, bytes: u64) -> Result<Expanded> {
        let found = self.find(&volume.key)?.filter(|found| found.generation == volume.generation);
        let found = found.ok_or_else(|| Error::not_found("this volume does not exist"))?;
        let capacity = CapacityRange::new(bytes.cast_signed(), 0)?;
        of(&self.backend.expand, "grows no volumes")?.expand(&self.cx(), &found, capacity)
    }

    /// Removes a volume; does nothing where it is gone.
    ///
    /// # Errors
    /// Those of the driver.
    pub fn delete(&self, volume: &Volume) -> Result<()> {
        match self.find(&volume.key)? {
            Some(found) if found.generation == volume.generation => {
                of(&self.backend.create, "makes no volumes")?.delete(&self.cx(), &found)
            }
            _ => Ok(()),
        }
    }

    /// All volumes.
    ///
    /// # Errors
    /// Those of the driver.
    pub fn list(&self) -> Result<Vec<Volume>> {
        of(&self.backend.volumes, "has no store")?.list(&self.cx(), None, usize::MAX)
    }

    fn find(&self, key: &VolumeKey) -> Result<Option<Volume>> {
        of(&self.backend.volumes, "has no store")?.find(&self.cx(), key)
    }
}

fn of<'a, T: ?Sized>(ability: &'a Option<Arc<T>>, what: &str) -> Result<&'a T> {
    ability.as_deref().ok_or_else(|| Error::internal(format!("the backend {what}")))
}
