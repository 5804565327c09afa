//! From a file whose keys are right to a configuration that is right as a whole.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use dunnage_driver_api::{BackendName, Configured, DriverEntry, KeyError, Reach, Role, read_keys};
use serde_json::{Map, Value};

use super::csi_name::CsiName;
use super::environment::Environment;
use super::error::ConfigError;
use super::file::{BackendKeys, File, Plugin};
use super::schema::{STORE, backend_keys, drivers_in_words};
use super::tree::Document;
use super::{BackendConfig, Config, PluginConfig};
use crate::server::Socket;

pub(super) fn resolve(
    document: &Document,
    drivers: &[DriverEntry],
    environment: &Environment,
) -> Result<Config, ConfigError> {
    let at = |error: KeyError| ConfigError::new(Some(document.place(&error.pointer)), error.message);
    let file: File = read_keys(&document.value()).map_err(at)?;
    let backends = Backends::read(file.backends, drivers, document).map_err(at)?;
    let sockets = file.sockets.into_path();
    let plugins =
        plugins(&backends, file.plugins, document, |csi_name| sockets.join(csi_name.as_str()).join("csi.sock"))
            .map_err(at)?;
    Ok(Config {
        state: file.state.into_path(),
        node: file.node.map_or_else(|| environment.node(), Ok)?,
        mode: file.mode,
        telemetry: file.telemetry.listen.0,
        log: file.log,
        drain: Duration::from_secs(file.drain_seconds.into()),
        backends: backends.configs,
        plugins: at_endpoint(plugins, environment)?,
        sockets,
    })
}

fn wrong<T>(pointer: impl Into<String>, message: impl Into<String>) -> Result<T, KeyError> {
    Err(KeyError { pointer: pointer.into(), message: message.into() })
}

/// The backends with what only plugins are made of.
struct Backends {
    configs: Vec<BackendConfig>,
    csi_names: Vec<Option<CsiName>>,
}

impl Backends {
    fn read(list: Vec<Map<String, Value>>, drivers: &[DriverEntry], document: &Document) -> Result<Self, KeyError> {
        if list.is_empty() {
            return wrong("/backends", "there is no backend: add one with a `name` and a `driver`");
        }
        let mut backends = Self { configs: Vec::new(), csi_names: Vec::new() };
        for (index, keys) in list.into_iter().enumerate() {
            let pointer = format!("/backends/{index}");
            let (config, csi_name) = backend(keys, drivers).map_err(|error| error.below(&pointer))?;
            if let Some(first) = backends.index(&config.name) {
                let line = document.place(&format!("/backends/{first}/name")).line;
                return wrong(
                    format!("{pointer}/name"),
                    format!(
                        "the backend in line {line} has the name {:?} too: give each its own",
                        config.name.as_str()
                    ),
                );
            }
            backends.configs.push(config);
            backends.csi_names.push(csi_name);
        }
        Ok(backends)
    }

    fn index(&self, name: &BackendName) -> Option<usize> {
        self.configs.iter().position(|config| config.name == *name)
    }
}

fn backend(
    mut keys: Map<String, Value>,
    drivers: &[DriverEntry],
) -> Result<(BackendConfig, Option<CsiName>), KeyError> {
    let host_keys = backend_keys();
    let own: Map<_, _> = host_keys.iter().filter_map(|key| keys.remove_entry(key)).collect();
    if !own.contains_key("driver") {
        return wrong("", format!("missing key `driver`: {}", drivers_in_words(drivers)));
    }
    let own: BackendKeys = read_keys(&Value::Object(own))?;
    let Some(driver) = drivers.iter().find(|driver| driver.name == own.driver) else {
        return wrong("/driver", format!("unknown driver {:?}: {}", own.driver, drivers_in_words(drivers)));
    };
    if own.nodes.as_ref().is_some_and(Vec::is_empty) {
        return wrong("/nodes", "`nodes` is empty, so that no node has the store: name one, or leave out `nodes`");
    }
    if own.workers.total < own.workers.threads {
        let (threads, total) = (own.workers.threads, own.workers.total);
        return wrong("/workers", format!("`total` {total} is below `threads` {threads}: make it at least as many"));
    }
    let store = match keys.remove_entry(STORE) {
        Some((_, value)) if driver.role == Role::Carrying => {
            Some(store(value, driver, drivers).map_err(|error| error.below("/store"))?)
        }
        Some((key, value)) => {
            keys.insert(key, value);
            None
        }
        None => None,
    };
    if store.is_some() && own.nodes.as_ref().is_none_or(|nodes| nodes.len() != 1) {
        let pointer = if own.nodes.is_some() { "/nodes" } else { "" };
        return wrong(pointer, "the store is on one node: name that one, and no other, in `nodes`");
    }
    if driver.role == Role::Carrying && own.ephemeral.is_some() {
        return wrong("/ephemeral", "volumes that are attached to a node cannot be a pod's own: leave `ephemeral` out");
    }
    let (store, carved) = store.unzip();
    let configured = (driver.configure)(&Value::Object(keys), carved).map_err(|mut error| {
        if error.message.starts_with("unknown key") && error.pointer.matches('/').count() == 1 {
            error.message.push_str(&format!("; or a key of every backend: `{}`", host_keys.join("`, `")));
            if driver.role == Role::Carrying {
                error.message.push_str("; or `store`");
            }
        }
        error
    })?;
    let config = BackendConfig {
        name: own.name,
        driver: driver.name,
        store,
        reach: driver.reach,
        configured,
        nodes: own.nodes,
        ephemeral: own.ephemeral,
        changed_block_size: own.changed_block_size,
        workers: own.workers,
        init: own.init,
    };
    Ok((config, own.csi_name))
}

/// The store of a backend that carries one, with the name of its driver.
fn store(
    value: Value,
    carrier: &DriverEntry,
    drivers: &[DriverEntry],
) -> Result<(&'static str, Arc<dyn Configured>), KeyError> {
    let carving: Vec<_> = drivers.iter().filter(|driver| driver.role == Role::Carving).map(|one| one.name).collect();
    let those =
        if carving.is_empty() { "this program has none".into() } else { format!("use {}", carving.join(" or ")) };
    let Value::Object(mut keys) = value else {
        return wrong("", format!("`store` must be a map with the key `driver` and that driver's own: {those}"));
    };
    let name = match keys.remove("driver") {
        Some(Value::String(name)) => name,
        Some(_) => return wrong("/driver", format!("`driver` must be a name: {those}")),
        None => return wrong("", format!("missing key `driver`: {those}")),
    };
    match drivers.iter().find(|driver| driver.name == name) {
        Some(driver) if driver.role == Role::Carving => {
            Ok((driver.name, (driver.configure)(&Value::Object(keys), None)?))
        }
        Some(_) => wrong(
            "/driver",
            format!("volumes of driver {name:?} are no block devices, which {} exports: {those}", carrier.name),
        ),
        None => wrong("/driver", format!("unknown driver {name:?}: {those}")),
    }
}

/// A plugin and the key that made it.
struct Made {
    plugin: PluginConfig,
    pointer: String,
}

fn plugins(
    backends: &Backends,
    shared: Vec<Plugin>,
    document: &Document,
    socket: impl Fn(&CsiName) -> PathBuf,
) -> Result<Vec<PluginConfig>, KeyError> {
    let shared = shared_plugins(backends, shared, document, &socket)?;
    let own = (0..backends.configs.len()).filter_map(|index| {
        let csi_name = backends.csi_names[index].clone();
        let key = if csi_name.is_some() { "csi_name" } else { "name" };
        let csi_name = csi_name.unwrap_or_else(|| CsiName::of_backend(&backends.configs[index].name));
        let taken = shared.iter().any(|made| made.plugin.backends.contains(&index));
        (!taken).then(|| Made {
            pointer: format!("/backends/{index}/{key}"),
            plugin: PluginConfig { socket: socket(&csi_name), csi_name, backends: vec![index], shared: false },
        })
    });
    let mut all: Vec<Made> = own.collect();
    all.extend(shared);
    for (index, made) in all.iter().enumerate() {
        let csi_name = &made.plugin.csi_name;
        if let Some(first) = all[..index].iter().find(|first| first.plugin.csi_name.same(csi_name)) {
            let line = document.place(&first.pointer).line;
            return wrong(
                &made.pointer,
                format!("the plugin of line {line} has the CSI name {:?} too: give each its own", csi_name.as_str()),
            );
        }
        let (length, limit) = (made.plugin.socket.as_os_str().len(), Socket::PATH_LIMIT);
        if length > limit {
            let socket = made.plugin.socket.display();
            return wrong(
                &made.pointer,
                format!(
                    "the socket {socket} has a path of {length} bytes, at most {limit} are possible: choose a shorter \
                     `csi_name` or `sockets`"
                ),
            );
        }
    }
    Ok(all.into_iter().map(|made| made.plugin).collect())
}

fn shared_plugins(
    backends: &Backends,
    list: Vec<Plugin>,
    document: &Document,
    socket: impl Fn(&CsiName) -> PathBuf,
) -> Result<Vec<Made>, KeyError> {
    let mut takers: Vec<Option<String>> = vec![None; backends.configs.len()];
    let mut all = Vec::new();
    for (number, Plugin { csi_name, backends: names }) in list.into_iter().enumerate() {
        if names.is_empty() {
            return wrong(format!("/plugins/{number}/backends"), "a plugin needs a backend: name one, or leave it out");
        }
        let mut indices = Vec::new();
        for (position, name) in names.iter().enumerate() {
            let pointer = format!("/plugins/{number}/backends/{position}");
            let Some(index) = backends.index(name) else {
                let known: Vec<_> = backends.configs.iter().map(|config| config.name.as_str()).collect();
                return wrong(
                    pointer,
                    format!("there is no backend {:?}: there are {}", name.as_str(), known.join(", ")),
                );
            };
            if let Some(taker) = &takers[index] {
                let line = document.place(taker).line;
                return wrong(
                    pointer,
                    format!("the backend {:?} is in the plugin of line {line} already: name it once", name.as_str()),
                );
            }
            if backends.csi_names[index].is_some() {
                return wrong(
                    format!("/backends/{index}/csi_name"),
                    format!(
                        "the backend {:?} is behind the plugin {csi_name} and has no CSI name of its own: remove this \
                         key, or the backend from `plugins`",
                        name.as_str()
                    ),
                );
            }
            takers[index] = Some(pointer);
            indices.push(index);
        }
        refuse_unlike(backends, &indices).map_err(|error| error.below(&format!("/plugins/{number}/backends")))?;
        all.push(Made {
            pointer: format!("/plugins/{number}/csi_name"),
            plugin: PluginConfig { socket: socket(&csi_name), csi_name, backends: indices, shared: true },
        });
    }
    Ok(all)
}

/// Behind one name either all volumes are attached or none, and only the storage node answers for those that are: an
/// orchestrator would ask it for volumes that it does not know.
fn refuse_unlike(backends: &Backends, indices: &[usize]) -> Result<(), KeyError> {
    let config = |index: &usize| &backends.configs[*index];
    let Some(attaches) = indices.iter().map(config).find(|config| config.store.is_some()) else { return Ok(()) };
    match indices.iter().position(|index| config(index).store.is_none() && config(index).reach == Reach::Node) {
        Some(position) => wrong(
            format!("/{position}"),
            format!(
                "volumes of backend {:?} are on one node and need no attaching, and those of {:?} are attached: give each a \
                 CSI name of its own",
                config(&indices[position]).name.as_str(),
                attaches.name.as_str()
            ),
        ),
        None => Ok(()),
    }
}

/// Puts the one plugin on the socket that the environment names.
fn at_endpoint(mut plugins: Vec<PluginConfig>, environment: &Environment) -> Result<Vec<PluginConfig>, ConfigError> {
    let Some(endpoint) = environment.socket()? else { return Ok(plugins) };
    let variable = "the environment variable CSI_ENDPOINT";
    let (length, limit) = (endpoint.as_os_str().len(), Socket::PATH_LIMIT);
    if length > limit {
        return Err(ConfigError::new(
            None,
            format!(
                "{variable} is the path {}, which has {length} bytes, at most {limit} are possible: choose a shorter one",
                endpoint.display()
            ),
        ));
    }
    if let [plugin] = plugins.as_mut_slice() {
        plugin.socket = endpoint;
        return Ok(plugins);
    }
    let names: Vec<_> = plugins.iter().map(|plugin| plugin.csi_name.as_str()).collect();
    Err(ConfigError::new(
        None,
        format!(
            "{variable} names one socket, and there are {} plugins ({}): unset it, or put all backends behind one \
             plugin in `plugins`",
            names.len(),
            names.join(", ")
        ),
    ))
}
