//! Compiles the protos without protoc, and writes a `Debug` that leaves out every secret.

use std::error::Error;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs};

use prost_reflect::{ExtensionDescriptor, FieldDescriptor, Kind, MessageDescriptor};

const PROTOS: [&str; 2] = ["csi.proto", "pluginregistration.proto"];
const PROTO_DIR: &str = "proto";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed={PROTO_DIR}");
    println!("cargo::rerun-if-changed=build.rs");
    let out_dir = PathBuf::from(env::var("OUT_DIR")?);

    let mut compiler = protox::Compiler::new([PROTO_DIR])?;
    compiler.include_imports(true).open_files(PROTOS)?;
    // `prost_types` forgets custom options; the encoded set keeps them for reflection.
    fs::write(out_dir.join("descriptor_set.bin"), compiler.encode_file_descriptor_set())?;

    let pool = compiler.descriptor_pool();
    let csi_secret = pool.get_extension_by_name("csi.v1.csi_secret").ok_or("csi.proto does not declare csi_secret")?;
    let secretive: Vec<MessageDescriptor> =
        pool.all_messages().filter(|message| message.fields().any(|field| is_secret(&field, &csi_secret))).collect();

    tonic_prost_build::configure()
        .generate_default_stubs(true)
        .skip_debug(secretive.iter().map(|message| format!(".{}", message.full_name())))
        .compile_fds(protox::compile(PROTOS, [PROTO_DIR])?)?;
    write_redacted(&out_dir, &secretive, &csi_secret)
}

fn is_secret(field: &FieldDescriptor, csi_secret: &ExtensionDescriptor) -> bool {
    field.options().get_extension(csi_secret).as_bool() == Some(true)
}

fn write_redacted(
    out_dir: &Path,
    secretive: &[MessageDescriptor],
    csi_secret: &ExtensionDescriptor,
) -> Result<(), Box<dyn Error>> {
    let mut debug = String::new();
    let mut list = String::from("&[\n");
    for message in secretive {
        let name = message.full_name();
        debug += &redacted_debug(message, csi_secret)?;
        for field in message.fields().filter(|field| is_secret(field, csi_secret)) {
            writeln!(list, "    ({name:?}, {:?}),", field.name())?;
        }
    }
    list.push_str("]\n");
    fs::write(out_dir.join("csi.v1.redacted.rs"), debug)?;
    fs::write(out_dir.join("secret_fields.rs"), list)?;
    Ok(())
}

/// The `Debug` that prost would derive, save that of a secret only its number of entries is told.
fn redacted_debug(message: &MessageDescriptor, csi_secret: &ExtensionDescriptor) -> Result<String, Box<dyn Error>> {
    let name = message.name();
    let mut fields = String::new();
    for field in message.fields() {
        refuse_unknown_shape(message, &field)?;
        let field_name = field.name();
        let value = if !is_secret(&field, csi_secret) {
            format!("&self.{field_name}")
        } else if field.is_map() || field.is_list() {
            format!("&format_args!(\"<{{}} redacted>\", self.{field_name}.len())")
        } else {
            "&format_args!(\"<redacted>\")".to_owned()
        };
        writeln!(fields, "            .field({field_name:?}, {value})")?;
    }
    Ok(format!(
        "impl ::core::fmt::Debug for {name} {{
    fn fmt(&self, f: &mut ::core::fmt::Formatter<'_>) -> ::core::fmt::Result {{
        f.debug_struct({name:?})
{fields}            .finish()
    }}
}}
"
    ))
}

/// prost lays these out in ways that no message with secrets needs so far: better no build than
/// a `Debug` that misleads.
fn refuse_unknown_shape(message: &MessageDescriptor, field: &FieldDescriptor) -> Result<(), Box<dyn Error>> {
    let shape = if message.parent_message().is_some() {
        "sits in a nested message"
    } else if field.containing_oneof().is_some() {
        "belongs to a oneof"
    } else if matches!(field.kind(), Kind::Enum(_)) {
        "is an enum"
    } else {
        return Ok(());
    };
    let name = field.full_name();
    Err(format!("{name} {shape}, beside a secret: teach the build script to print it").into())
}
