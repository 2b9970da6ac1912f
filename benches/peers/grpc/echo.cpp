// gRPC's C++ library with its callback API, in the same words as the Rust peers (rpc/src/lib.rs): an echo of bytes.
//
// The generic service and stub carry the bytes without protobuf around them, which costs less than what tonic does
// with its one field. Ends the process when something fails: it is measured, not used.
#include <grpcpp/generic/async_generic_service.h>
#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/grpcpp.h>
#include <sys/resource.h>

#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <fstream>
#include <iostream>
#include <sstream>
#include <string>
#include <thread>

namespace {

// As tonic's in this comparison, so that 1 MiB calls, four at a time, go without a stop.
constexpr int kMessageSizeMax = 16 << 20;

class Echo final : public grpc::CallbackGenericService {
    grpc::ServerGenericBidiReactor* CreateReactor(grpc::GenericCallbackServerContext*) override {
        class Call final : public grpc::ServerGenericBidiReactor {
        public:
            Call() { StartRead(&payload_); }
            void OnReadDone(bool ok) override {
                if (ok) {
                    StartWriteAndFinish(&payload_, grpc::WriteOptions(), grpc::Status::OK);
                } else {
                    Finish(grpc::Status(grpc::StatusCode::CANCELLED, "no request"));
                }
            }
            void OnDone() override { delete this; }

        private:
            grpc::ByteBuffer payload_;
        };
        return new Call;
    }
};

struct Caller {
    grpc::GenericStub stub;
    std::string payload;
    std::atomic<unsigned long> calls{0};

    Caller(std::shared_ptr<grpc::Channel> channel, size_t size) : stub(channel), payload(size, '\7') {}

    // One chain of calls: each begins the next when it is answered.
    void Next() {
        struct Call {
            grpc::ClientContext context;
            grpc::ByteBuffer request, response;
        };
        auto* call = new Call;
        grpc::Slice slice(payload);
        call->request = grpc::ByteBuffer(&slice, 1);
        stub.UnaryCall(&call->context, "/bench.Echo/Echo", grpc::StubOptions(), &call->request, &call->response,
                       [this, call](grpc::Status status) {
                           if (!status.ok() || call->response.Length() != payload.size()) {
                               std::cerr << "the server does not echo: " << status.error_message() << "\n";
                               std::_Exit(1);
                           }
                           delete call;
                           calls.fetch_add(1, std::memory_order_relaxed);
                           Next();
                       });
    }
};

std::string ReadFile(const std::string& path) {
    std::ifstream file(path);
    std::stringstream text;
    text << file.rdbuf();
    return text.str();
}

double ProcessorSeconds() {
    timespec time{};
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
    return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_nsec) / 1e9;
}

int Serve(const std::string& address, const std::string& certificates) {
    Echo echo;
    grpc::ServerBuilder builder;
    auto credentials = grpc::InsecureServerCredentials();
    if (!certificates.empty()) {
        grpc::SslServerCredentialsOptions options;
        options.pem_key_cert_pairs.push_back(
            {ReadFile(certificates + "/key.pem"), ReadFile(certificates + "/certificate.pem")});
        credentials = grpc::SslServerCredentials(options);
    }
    int port = 0;
    builder.AddListeningPort(address, credentials, &port);
    builder.SetMaxReceiveMessageSize(kMessageSizeMax);
    builder.RegisterCallbackGenericService(&echo);
    auto server = builder.BuildAndStart();
    if (!server || port == 0) return 1;
    server->Wait();
    return 0;
}

int Call(const std::string& address, int in_flight, size_t size, double seconds, const std::string& certificates) {
    grpc::ChannelArguments arguments;
    arguments.SetMaxReceiveMessageSize(kMessageSizeMax);
    auto credentials = grpc::InsecureChannelCredentials();
    if (!certificates.empty()) {
        grpc::SslCredentialsOptions options;
        options.pem_root_certs = ReadFile(certificates + "/certificate.pem");
        credentials = grpc::SslCredentials(options);
        arguments.SetSslTargetNameOverride("localhost");
    }
    Caller caller(grpc::CreateCustomChannel(address, credentials, arguments), size);
    for (int i = 0; i < in_flight; i++) caller.Next();
    std::this_thread::sleep_for(std::chrono::duration<double>(seconds / 4));
    std::printf("begin\n");
    std::fflush(stdout);
    auto begin = std::chrono::steady_clock::now();
    double processor = ProcessorSeconds();
    unsigned long calls = caller.calls.load();
    std::this_thread::sleep_for(std::chrono::duration<double>(seconds));
    std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - begin;
    calls = caller.calls.load() - calls;
    std::printf("end %lu %f %f\n", calls, elapsed.count(), ProcessorSeconds() - processor);
    std::fflush(stdout);
    std::_Exit(0);
}

}  // namespace

int main(int count, char** words) {
    std::string word = count > 2 ? words[1] : "";
    if (word == "serve" && count <= 4) return Serve(words[2], count == 4 ? words[3] : "");
    if (word == "call" && count >= 6 && count <= 7)
        return Call(words[2], std::atoi(words[3]), std::strtoul(words[4], nullptr, 10), std::atof(words[5]),
                    count == 7 ? words[6] : "");
    std::cerr << "usage: serve ADDRESS [CERTIFICATES] | call ADDRESS IN_FLIGHT SIZE SECONDS [CERTIFICATES]\n";
    return 2;
}
