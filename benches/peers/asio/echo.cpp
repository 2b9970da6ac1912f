// The echo server with callbacks on Asio (stand-alone or Boost's), one thread.
//
// Each step of a connection is a lambda that the next step is handed to: read until a newline, write that line,
// begin again. The same work as every other server here: TCP_NODELAY, a buffer per connection, one line at a time.
//
// Build: c++ -O2 -std=c++17 -pthread echo.cpp -o echo_asio      (Debian: libasio-dev)

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <iostream>
#include <memory>
#include <string>
#include <utility>

#if __has_include(<asio.hpp>)
#include <asio.hpp>
namespace net = asio;
using Error = std::error_code;
#else
#include <boost/asio.hpp>
namespace net = boost::asio;
using Error = boost::system::error_code;
#endif

using net::ip::tcp;

constexpr std::size_t LINE_SIZE_BYTES_MAX = 1 << 20;

class Session : public std::enable_shared_from_this<Session> {
public:
    explicit Session(tcp::socket socket) : socket_(std::move(socket)) { buffer_.reserve(8192); }

    void read() {
        auto self = shared_from_this();
        net::async_read_until(socket_, net::dynamic_buffer(buffer_, LINE_SIZE_BYTES_MAX), '\n',
                              [this, self](Error error, std::size_t size) {
                                  if (!error) write(size);
                              });
    }

private:
    void write(std::size_t size) {
        auto self = shared_from_this();
        net::async_write(socket_, net::buffer(buffer_.data(), size), [this, self, size](Error error, std::size_t) {
            if (error) return;
            buffer_.erase(0, size);
            read();
        });
    }

    tcp::socket socket_;
    std::string buffer_;
};

class Server {
public:
    Server(net::io_context& context, const tcp::endpoint& endpoint) : acceptor_(context, endpoint) { accept(); }

private:
    void accept() {
        acceptor_.async_accept([this](Error error, tcp::socket socket) {
            if (!error) {
                Error ignored;
                socket.set_option(tcp::no_delay(true), ignored);
                std::make_shared<Session>(std::move(socket))->read();
            }
            accept();
        });
    }

    tcp::acceptor acceptor_;
};

int main(int count, char** arguments) {
    if (count != 3 || std::strcmp(arguments[1], "--listen") != 0 || !std::strrchr(arguments[2], ':')) {
        std::cerr << "usage: echo_asio --listen ADDRESS:PORT\n";
        return 2;
    }
    const std::string address = arguments[2];
    const auto colon = address.rfind(':');
    // A hint of one thread lets Asio leave its locks out.
    net::io_context context(1);
    Server server(context, {net::ip::make_address(address.substr(0, colon)),
                            static_cast<std::uint16_t>(std::atoi(address.c_str() + colon + 1))});
    context.run();
}
