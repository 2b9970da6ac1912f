//! tonic: gRPC over HTTP/2, a protobuf message with one field of bytes, one thread.

use bytes::Bytes;
use rpc_bench::{Task, arguments, drive, run};
use std::error::Error;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Identity, Server, ServerTlsConfig};
use tonic::{Request, Response, Status};

/// What is echoed.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Payload {
    /// Not copied on its way in: `Bytes` shares the frame's buffer.
    #[prost(bytes = "bytes", tag = "1")]
    pub data: Bytes,
}

#[allow(missing_docs, unreachable_pub)]
mod generated {
    include!(concat!(env!("OUT_DIR"), "/bench.Echo.rs"));
}
use generated::echo_client::EchoClient;
use generated::echo_server::{Echo, EchoServer};

struct Service;

#[tonic::async_trait]
impl Echo for Service {
    async fn echo(&self, request: Request<Payload>) -> Result<Response<Payload>, Status> {
        Ok(Response::new(request.into_inner()))
    }
}

/// HTTP/2 windows that let 1 MiB calls, four at a time, go without a stop.
const WINDOW_SIZE_BYTES: u32 = 8 << 20;

fn main() -> Result<(), Box<dyn Error>> {
    let (task, certificates) = arguments();
    let read = |name: &str| certificates.as_ref().map(|path| std::fs::read(path.join(name))).transpose();
    let (certificate, key) = (read("certificate.pem")?, read("key.pem")?);
    run(async {
        match task {
            Task::Serve(address) => {
                let mut server = Server::builder()
                    .tcp_nodelay(true)
                    .initial_stream_window_size(WINDOW_SIZE_BYTES)
                    .initial_connection_window_size(WINDOW_SIZE_BYTES);
                if let (Some(certificate), Some(key)) = (certificate, key) {
                    let identity = Identity::from_pem(certificate, key);
                    server = server.tls_config(ServerTlsConfig::new().identity(identity))?;
                }
                server.add_service(EchoServer::new(Service)).serve(address).await?;
            }
            Task::Call(address, load) => {
                let scheme = if certificate.is_some() { "https" } else { "http" };
                let mut endpoint = Channel::from_shared(format!("{scheme}://{address}"))?
                    .tcp_nodelay(true)
                    .initial_stream_window_size(WINDOW_SIZE_BYTES)
                    .initial_connection_window_size(WINDOW_SIZE_BYTES);
                if let Some(certificate) = certificate {
                    let root = Certificate::from_pem(certificate);
                    let tls = ClientTlsConfig::new().ca_certificate(root).domain_name("localhost");
                    endpoint = endpoint.tls_config(tls)?;
                }
                let client = EchoClient::new(endpoint.connect().await?);
                let data = Bytes::from(vec![7; load.size_bytes]);
                let call = move || {
                    let (mut client, data) = (client.clone(), data.clone());
                    async move {
                        client
                            .echo(Payload { data })
                            .await
                            .expect("the server echoes")
                            .into_inner()
                            .data
                            .len()
                    }
                };
                drive(load, call).await;
            }
        }
        Ok(())
    })
}
