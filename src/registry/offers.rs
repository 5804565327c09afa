//! What a plugin advertises: from the abilities of its backends, and from nothing else.

use std::fmt;

use dunnage_driver_api::{Backend, Reach, Staging};
use serde::{Deserialize, Serialize};

use crate::config::Mode;

/// What a plugin offers to and needs from the orchestrator. It stays as it is while the socket is there.
///
/// Behind a shared name, offers are intersected and needs are united.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Offers {
    /// The controller service, with ListVolumes and ControllerGetVolume.
    pub controller: bool,
    /// CREATE_DELETE_VOLUME.
    pub create: bool,
    /// GET_CAPACITY.
    pub room: bool,
    /// EXPAND_VOLUME of the controller, online.
    pub expand: bool,
    /// CREATE_DELETE_SNAPSHOT, LIST_SNAPSHOTS and GET_SNAPSHOT.
    pub snapshots: bool,
    /// GROUP_CONTROLLER_SERVICE, with CREATE_DELETE_GET_VOLUME_GROUP_SNAPSHOT.
    pub groups: bool,
    /// SNAPSHOT_METADATA_SERVICE.
    pub snapshot_metadata: bool,
    /// CLONE_VOLUME.
    pub clones: bool,
    /// MODIFY_VOLUME.
    pub modify: bool,
    /// GET_VOLUME_HEALTH and LIST_VOLUME_HEALTH of the controller.
    pub health: bool,
    /// PUBLISH_READONLY and LIST_VOLUMES_PUBLISHED_NODES: what is attached is known of each volume.
    pub attachments: bool,
    /// The node service, with statistics and health.
    pub node: bool,
    /// A need: PUBLISH_UNPUBLISH_VOLUME.
    pub attach: bool,
    /// A need: STAGE_UNSTAGE_VOLUME.
    pub stage: bool,
    /// A need: EXPAND_VOLUME of the node.
    pub expand_node: bool,
    /// A need: VOLUME_ACCESSIBILITY_CONSTRAINTS.
    pub constraints: bool,
}

impl Offers {
    /// What one backend offers and needs in a process that runs `mode`.
    pub fn of(backend: &Backend, mode: Mode) -> Self {
        let (controller, node) = (mode != Mode::Node, mode != Mode::Controller);
        let node_half = backend.node.as_ref().filter(|_| node);
        let stage = node_half.is_some_and(|(_, staging)| *staging == Staging::Needed);
        let controller = controller && backend.volumes.is_some();
        let snapshots = controller && backend.create.is_some() && backend.snapshots.is_some();
        Self {
            controller,
            create: controller && backend.create.is_some(),
            room: controller && backend.room.is_some(),
            expand: controller && backend.expand.is_some(),
            snapshots,
            groups: snapshots && backend.groups.is_some(),
            snapshot_metadata: snapshots && backend.changed_blocks.is_some(),
            clones: controller && backend.create.is_some() && backend.clones,
            modify: controller && backend.modify.is_some(),
            health: controller && backend.health.is_some(),
            attachments: controller && backend.attach.is_some(),
            attach: controller && backend.attach.is_some(),
            node: node_half.is_some(),
            stage,
            // Of a node half alone nobody here knows whether its volumes grow.
            expand_node: stage && (backend.expand.is_some() || backend.volumes.is_none()),
            constraints: backend.reach == Reach::Node,
        }
    }

    /// What two that share a name offer and need together.
    #[must_use]
    pub fn shared_with(self, other: Self) -> Self {
        Self {
            controller: self.controller && other.controller,
            create: self.create && other.create,
            room: self.room && other.room,
            expand: self.expand && other.expand,
            snapshots: self.snapshots && other.snapshots,
            groups: self.groups && other.groups,
            snapshot_metadata: self.snapshot_metadata && other.snapshot_metadata,
            clones: self.clones && other.clones,
            modify: self.modify && other.modify,
            health: self.health && other.health,
            attachments: self.attachments && other.attachments,
            attach: self.attach || other.attach,
            node: self.node && other.node,
            stage: self.stage || other.stage,
            expand_node: self.expand_node || other.expand_node,
            constraints: self.constraints || other.constraints,
        }
    }

    /// A need: SNAPSHOT_ACCESSIBILITY_CONSTRAINTS, since a volume lies where the snapshot does that it is made from.
    pub fn snapshot_constraints(self) -> bool {
        self.snapshots && self.constraints
    }

    /// Whether a backend with these offers can join a plugin that advertises `advertised` without making it a liar.
    pub fn can_join(self, advertised: Self) -> bool {
        self.shared_with(advertised) == advertised
    }

    /// The names of what is offered here and not in `shared`: what sharing takes away.
    pub fn lost_in(self, shared: Self) -> impl Iterator<Item = &'static str> {
        [
            ("CREATE_DELETE_VOLUME", self.create, shared.create),
            ("GET_CAPACITY", self.room, shared.room),
            ("EXPAND_VOLUME", self.expand, shared.expand),
            ("snapshots", self.snapshots, shared.snapshots),
            ("GROUP_CONTROLLER_SERVICE", self.groups, shared.groups),
            ("SNAPSHOT_METADATA_SERVICE", self.snapshot_metadata, shared.snapshot_metadata),
            ("CLONE_VOLUME", self.clones, shared.clones),
            ("MODIFY_VOLUME", self.modify, shared.modify),
            ("GET_VOLUME_HEALTH of the controller", self.health, shared.health),
            ("PUBLISH_READONLY and LIST_VOLUMES_PUBLISHED_NODES", self.attachments, shared.attachments),
            ("the node service", self.node, shared.node),
            // Needs the other way round: to be spared a step is an offer too.
            ("to be used without attaching", self.controller && !self.attach, !shared.attach),
            ("to be published without staging", self.node && !self.stage, !shared.stage),
        ]
        .into_iter()
        .filter_map(|(name, here, there)| (here && !there).then_some(name))
    }
}

impl fmt::Display for Offers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = [
            ("create", self.create),
            ("capacity", self.room),
            ("expand", self.expand),
            ("snapshots", self.snapshots),
            ("groups", self.groups),
            ("changed blocks", self.snapshot_metadata),
            ("clones", self.clones),
            ("modify", self.modify),
            ("health", self.health),
            ("attach", self.attach),
            ("node", self.node),
            ("stage", self.stage),
            ("constraints", self.constraints),
        ];
        let names: Vec<_> = names.iter().filter_map(|(name, there)| there.then_some(*name)).collect();
        f.write_str(&names.join(" "))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use dunnage_driver_api::{Context, Error, NoParameters, Node, ParameterType, Result, Source, SourceRequest};

    use super::*;

    const ALL: Offers = Offers {
        controller: true,
        create: true,
        room: true,
        expand: true,
        snapshots: true,
        groups: true,
        snapshot_metadata: true,
        clones: true,
        modify: true,
        health: true,
        attachments: true,
        attach: true,
        node: true,
        stage: true,
        expand_node: true,
        constraints: true,
    };

    #[test]
    fn offers_are_intersected_and_needs_united() {
        let plain = Offers { expand: false, stage: false, expand_node: false, ..ALL };
        let shared = ALL.shared_with(plain);
        assert_eq!(shared, Offers { expand: false, ..ALL });
        assert_eq!(ALL.lost_in(shared).collect::<Vec<_>>(), ["EXPAND_VOLUME"]);
        assert_eq!(plain.lost_in(shared).collect::<Vec<_>>(), ["to be published without staging"]);
    }

    #[test]
    fn a_plugin_needs_attaching_as_soon_as_one_backend_does_and_tells_of_it_where_all_do() {
        let without = Offers { attachments: false, attach: false, ..ALL };
        let shared = ALL.shared_with(without);
        assert_eq!(shared, Offers { attachments: false, ..ALL });
        assert_eq!(ALL.lost_in(shared).collect::<Vec<_>>(), ["PUBLISH_READONLY and LIST_VOLUMES_PUBLISHED_NODES"]);
        assert_eq!(without.lost_in(shared).collect::<Vec<_>>(), ["to be used without attaching"]);
        assert!(without.can_join(shared) && !ALL.can_join(without));
    }

    struct Devices;

    impl Node for Devices {
        fn source(&self, _: &Context, _: &SourceRequest<'_>) -> Result<Source> {
            Err(Error::internal("there is none"))
        }
    }

    #[test]
    fn a_node_half_alone_shows_what_its_controller_has_grown_elsewhere() {
        let instance = "a".repeat(26).parse().unwrap();
        let backend = Backend::new(instance, Reach::Everywhere, ParameterType::of::<NoParameters>());
        let half = |staging| Offers::of(&backend.clone().with_node(Arc::new(Devices), staging), Mode::All);
        let devices = half(Staging::Needed);
        assert_eq!(devices, Offers { node: true, stage: true, expand_node: true, ..Offers::default() });
        assert_eq!(half(Staging::None), Offers { node: true, ..Offers::default() });
    }

    #[test]
    fn a_late_backend_joins_only_what_it_keeps_true() {
        let small = Offers { expand: false, stage: false, expand_node: false, ..ALL };
        assert!(ALL.can_join(ALL));
        assert!(!small.can_join(ALL), "it cannot expand, which is advertised");
        assert!(!ALL.can_join(small), "it must be staged, which nobody was told");
    }
}
