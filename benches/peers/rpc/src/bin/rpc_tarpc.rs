//! tarpc: bincode in length-delimited frames, one thread.

use futures::StreamExt;
use rpc_bench::{Load, Task, arguments, drive, run};
use serde_bytes::ByteBuf;
use std::error::Error;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tarpc::server::{BaseChannel, Channel};
use tarpc::tokio_serde::formats::Bincode;
use tarpc::tokio_util::codec::length_delimited::LengthDelimitedCodec;
use tarpc::{client, context, serde_transport};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio_rustls::{TlsAcceptor, TlsConnector};

#[tarpc::service]
trait Echo {
    /// Returns what it gets. `ByteBuf`, because serde takes a `Vec<u8>` apart byte by byte.
    async fn echo(data: ByteBuf) -> ByteBuf;
}

#[derive(Clone)]
struct Service;

impl Echo for Service {
    async fn echo(self, _: context::Context, data: ByteBuf) -> ByteBuf {
        data
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let (task, certificates) = arguments();
    let certificate = match &certificates {
        Some(path) => Some(CertificateDer::from_pem_file(path.join("certificate.pem"))?),
        None => None,
    };
    run(async {
        match task {
            Task::Serve(address) => {
                let acceptor = match (certificate, certificates) {
                    (Some(certificate), Some(path)) => {
                        let key = PrivateKeyDer::from_pem_file(path.join("key.pem"))?;
                        let config = ServerConfig::builder()
                            .with_no_client_auth()
                            .with_single_cert(vec![certificate], key)?;
                        Some(TlsAcceptor::from(Arc::new(config)))
                    }
                    _ => None,
                };
                let listener = TcpListener::bind(address).await?;
                loop {
                    let (stream, _) = listener.accept().await?;
                    stream.set_nodelay(true)?;
                    let acceptor = acceptor.clone();
                    tokio::task::spawn_local(async move {
                        match acceptor {
                            None => serve(stream).await,
                            // A caller that only looks whether we listen sends no greeting.
                            Some(acceptor) => {
                                if let Ok(stream) = acceptor.accept(stream).await {
                                    serve(stream).await;
                                }
                            }
                        }
                    });
                }
            }
            Task::Call(address, load) => {
                let stream = TcpStream::connect(address).await?;
                stream.set_nodelay(true)?;
                match certificate {
                    None => call(stream, load).await,
                    Some(certificate) => {
                        let mut roots = RootCertStore::empty();
                        roots.add(certificate)?;
                        let config =
                            ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
                        let connector = TlsConnector::from(Arc::new(config));
                        call(connector.connect(ServerName::try_from("localhost")?, stream).await?, load)
                            .await;
                    }
                }
                Ok(())
            }
        }
    })
}

async fn serve(stream: impl AsyncRead + AsyncWrite + Unpin + 'static) {
    let frames = LengthDelimitedCodec::builder().new_framed(stream);
    let transport = serde_transport::new(frames, Bincode::default());
    let requests = BaseChannel::with_defaults(transport).execute(Service.serve());
    requests
        .for_each(|handler| async {
            tokio::task::spawn_local(handler);
        })
        .await;
}

async fn call(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, load: Load) {
    let frames = LengthDelimitedCodec::builder().new_framed(stream);
    let transport = serde_transport::new(frames, Bincode::default());
    let client = EchoClient::new(client::Config::default(), transport).spawn();
    let data = ByteBuf::from(vec![7; load.size_bytes]);
    let call = move || {
        let (client, data) = (client.clone(), data.clone());
        async move {
            let mut context = context::current();
            context.deadline = Instant::now() + Duration::from_secs(10);
            client.echo(context, data).await.expect("the server echoes").len()
        }
    };
    drive(load, call).await;
}
