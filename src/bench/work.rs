//! One piece of the work that is measured.

use std::time::Instant;

use crate::bench::Samples;
use crate::bench::side::Side;
use crate::client::{Access, Error, Life, Result, blocking};

/// What a whole life is called among the calls.
pub(crate) const WHOLE_LIFE: &str = "whole life";

/// What a walk through all pages is called.
pub(crate) const WHOLE_WALK: &str = "whole list";

/// A volume that is kept: its number, and its id if the create was answered.
#[derive(Debug)]
pub(crate) struct Kept {
    number: usize,
    volume_id: Option<String>,
}

/// A whole life. Whatever fails, what was begun is taken back.
pub(crate) async fn live(side: &Side, number: usize, samples: &mut Samples) -> bool {
    let mut life = Life::new(&side.plugin, side.request("life", number), side.folder(number));
    let start = Instant::now();
    let lived = begin(side, &mut life, samples).await;
    let errors = life.end(samples).await;
    let whole = lived.is_ok() && errors.is_empty();
    if whole {
        samples.keep(WHOLE_LIFE, start.elapsed());
    }
    whole
}

async fn begin(side: &Side, life: &mut Life, samples: &mut Samples) -> Result<()> {
    let offers = side.plugin.offers();
    life.prepare(&["target"]).await?;
    samples.time("CreateVolume", life.create()).await?;
    if offers.attaches() {
        samples.time("ControllerPublishVolume", life.attach()).await?;
    }
    if offers.stages() {
        samples.time("NodeStageVolume", life.stage()).await?;
    }
    let target = samples.time("NodePublishVolume", life.publish("target", false)).await?;
    let (view, block) = (side.view.clone(), side.options.access == Access::Block);
    let write = blocking("cannot write in the volume at", &target, move |target| view.write(target, block));
    samples.time("a write in the volume", write).await
}

/// A create that is kept.
pub(crate) async fn keep(side: &Side, part: &str, number: usize, samples: &mut Samples) -> Kept {
    let request = side.request(part, number).to_wire(side.plugin.offers());
    let created = samples.time("CreateVolume", side.plugin.create_volume(request)).await;
    Kept { number, volume_id: created.ok().map(|volume| volume.volume_id) }
}

/// The end of a kept volume. One whose create failed may be there all the same: only a repetition tells its id.
pub(crate) async fn discard(side: &Side, part: &str, kept: Kept, samples: &mut Samples) -> bool {
    let volume_id = match kept.volume_id {
        Some(volume_id) => volume_id,
        None => {
            let request = side.request(part, kept.number).to_wire(side.plugin.offers());
            match side.plugin.create_volume(request).await {
                Ok(volume) => volume.volume_id,
                Err(_) => return false,
            }
        }
    };
    samples.time("DeleteVolume", side.plugin.delete_volume(&volume_id)).await.is_ok()
}

/// A walk through all pages.
pub(crate) async fn walk(side: &Side, samples: &mut Samples) -> bool {
    let (start, mut token) = (Instant::now(), String::new());
    loop {
        let page = side.plugin.list_volumes(side.options.page_size, &token);
        match samples.time("ListVolumes", page).await {
            Ok(page) if page.next_token.is_empty() => break,
            Ok(page) if page.next_token == token => {
                let what = format!("the token {token:?} for the page after itself");
                samples.fail(&Error::Answer { rpc: "ListVolumes", what });
                return false;
            }
            Ok(page) => token = page.next_token,
            Err(_) => return false,
        }
    }
    samples.keep(WHOLE_WALK, start.elapsed());
    true
}
