//! Holds the `.proto` files to the protocol: every message, number, type and method, rendered as text and compared with
//! `wire_numbers.txt`. The lines on the client API and on logged requests were made from our notes on etcd's surface, not
//! from the `.proto` files, so a slip of the pen in either shows; the lines on the raft, WAL and snapshot packages were
//! rendered and then read against etcd's numbers, and `vectors.rs` holds those bytes. A change here is a change of protocol.

use expect_test::expect_file;
use prost::Message;
use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{
    DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorSet,
    ServiceDescriptorProto,
};

#[test]
fn every_number_and_name_is_etcds() {
    expect_file!["wire_numbers.txt"].assert_eq(&render_all());
}

#[test]
fn all_49_methods_of_8_services_exist() {
    let rendered = render_all();
    let methods: Vec<&str> = rendered
        .lines()
        .filter_map(|line| line.strip_prefix("rpc /"))
        .collect();
    assert_eq!(methods.len(), 49);

    let mut services: Vec<&str> = methods
        .iter()
        .filter_map(|method| method.split('/').next())
        .collect();
    services.dedup();
    assert_eq!(
        services,
        [
            "etcdserverpb.Auth",
            "etcdserverpb.Cluster",
            "etcdserverpb.KV",
            "etcdserverpb.Lease",
            "etcdserverpb.Maintenance",
            "etcdserverpb.Watch",
            "v3electionpb.Election",
            "v3lockpb.Lock",
        ]
    );
}

fn render_all() -> String {
    let set = FileDescriptorSet::decode(quorate_proto::FILE_DESCRIPTOR_SET)
        .expect("the build script wrote it");
    let mut lines = Vec::new();
    for file in &set.file {
        let package = file.package();
        for message in &file.message_type {
            lines.push(render_message(package, message));
            for nested in &message.enum_type {
                lines.push(render_enum(
                    &format!("{package}.{}", message.name()),
                    nested,
                ));
            }
        }
        lines.extend(
            file.enum_type
                .iter()
                .map(|enumeration| render_enum(package, enumeration)),
        );
        lines.extend(
            file.service
                .iter()
                .flat_map(|service| render_methods(package, service)),
        );
    }
    lines.sort_unstable();
    lines.join("\n") + "\n"
}

fn render_message(package: &str, message: &DescriptorProto) -> String {
    let mut fields: Vec<&FieldDescriptorProto> = message.field.iter().collect();
    fields.sort_unstable_by_key(|field| field.number());
    let fields: Vec<String> = fields
        .into_iter()
        .map(|field| render_field(message, field))
        .collect();
    let colon = if fields.is_empty() { "" } else { ": " };
    format!(
        "message {package}.{}{colon}{}",
        message.name(),
        fields.join(", ")
    )
}

fn render_field(message: &DescriptorProto, field: &FieldDescriptorProto) -> String {
    let label = match field.label() {
        Label::Repeated => "repeated ",
        Label::Required => "required ",
        Label::Optional => "",
    };
    let kind = match field.r#type() {
        Type::Message | Type::Enum => field
            .type_name()
            .rsplit('.')
            .next()
            .unwrap_or_default()
            .to_owned(),
        scalar => scalar
            .as_str_name()
            .trim_start_matches("TYPE_")
            .to_lowercase(),
    };
    let oneof = field
        .oneof_index
        .map(|index| format!(" in {}", message.oneof_decl[index as usize].name()));
    format!(
        "{} {} {label}{kind}{}",
        field.number(),
        field.name(),
        oneof.unwrap_or_default()
    )
}

fn render_enum(scope: &str, enumeration: &EnumDescriptorProto) -> String {
    let values: Vec<String> = enumeration
        .value
        .iter()
        .map(|value| format!("{} {}", value.number(), value.name()))
        .collect();
    format!("enum {scope}.{}: {}", enumeration.name(), values.join(", "))
}

fn render_methods(package: &str, service: &ServiceDescriptorProto) -> Vec<String> {
    let stream = |is_stream| if is_stream { "stream " } else { "" };
    let short = |type_name: &str| type_name.rsplit('.').next().unwrap_or_default().to_owned();
    let render = |method: &prost_types::MethodDescriptorProto| {
        format!(
            "rpc /{package}.{}/{}: {}{} -> {}{}",
            service.name(),
            method.name(),
            stream(method.client_streaming()),
            short(method.input_type()),
            stream(method.server_streaming()),
            short(method.output_type()),
        )
    };
    service.method.iter().map(render).collect()
}
