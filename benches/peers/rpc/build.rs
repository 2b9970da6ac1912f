//! Generates tonic's client and server of the one echo call; by hand, so that no `protoc` is needed.

fn main() {
    let echo = tonic_build::manual::Method::builder()
        .name("echo")
        .route_name("Echo")
        .input_type("crate::Payload")
        .output_type("crate::Payload")
        .codec_path("tonic_prost::ProstCodec")
        .build();
    let service = tonic_build::manual::Service::builder().name("Echo").package("bench").method(echo).build();
    tonic_build::manual::Builder::new().compile(&[service]);
}
