//! Mistakes, and what the plugin says to them.

use tonic::Code;

use crate::client::Life;
use crate::demo::script::{Failed, Script};
use crate::demo::stories::{bytes, parts};

/// A life with three requests that must be refused, in words that help.
pub(crate) async fn refusals(script: &mut Script<'_>, life: &mut Life) -> Result<(), Failed> {
    let plugin = life.plugin().clone();
    let request = life.request().to_wire(plugin.offers());

    let mut unknown = request.clone();
    unknown.name += "-misspelt";
    unknown.parameters.insert("colour".to_owned(), "blue".to_owned());
    let step = async {
        parts::refused(plugin.create_volume(unknown).await, Code::InvalidArgument, "a parameter that nobody knows")
    };
    script.step("CreateVolume", "INVALID_ARGUMENT", step).await?;

    parts::create(script, life).await?;
    let mut larger = request;
    let size = life.request().required_bytes * 2;
    larger.capacity_range.get_or_insert_default().required_bytes = size;
    let step = async {
        let meaning = format!("the same name, now of {}", bytes(size));
        parts::refused(plugin.create_volume(larger).await, Code::AlreadyExists, &meaning)
    };
    script.step("CreateVolume", "ALREADY_EXISTS", step).await?;

    parts::stage(script, life, "brought to the node").await?;
    parts::publish(script, life, ("pod-a", false), "bound into a pod").await?;
    let step = async {
        let volume_id = &life.volume()?.volume_id;
        parts::refused(plugin.delete_volume(volume_id).await, Code::FailedPrecondition, "while a pod uses it")
    };
    script.step("DeleteVolume", "FAILED_PRECONDITION", step).await?;
    parts::unpublish(script, life, "pod-a").await?;
    parts::finish(script, life).await
}
