// A TURN client of pion's over DTLS: allocates, has a peer echo ten messages, and ends.
package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"os"
	"time"

	"github.com/pion/dtls/v2"
	"github.com/pion/logging"
	"github.com/pion/turn/v2"
)

// A session is a connection; TURN clients of pion's want a socket.
type packetConn struct{ net.Conn }

func (c packetConn) ReadFrom(p []byte) (int, net.Addr, error) {
	n, err := c.Conn.Read(p)
	return n, c.Conn.RemoteAddr(), err
}

func (c packetConn) WriteTo(p []byte, _ net.Addr) (int, error) { return c.Conn.Write(p) }

func must(err error, what string) {
	if err != nil {
		fmt.Fprintln(os.Stderr, what+":", err)
		os.Exit(1)
	}
}

func main() {
	server, authority, username, password, peer := os.Args[1], os.Args[2], os.Args[3], os.Args[4], os.Args[5]
	pem, err := os.ReadFile(authority)
	must(err, "authority")
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		must(fmt.Errorf("no certificate in it"), "authority")
	}
	address, err := net.ResolveUDPAddr("udp", server)
	must(err, "server")
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	conn, err := dtls.DialWithContext(ctx, "udp", address, &dtls.Config{
		RootCAs: roots, ServerName: "localhost", ClientAuth: dtls.NoClientCert, Certificates: []tls.Certificate{},
	})
	must(err, "handshake")
	client, err := turn.NewClient(&turn.ClientConfig{
		STUNServerAddr: server, TURNServerAddr: server, Conn: packetConn{conn},
		Username: username, Password: password, Realm: "turn.test",
		LoggerFactory: logging.NewDefaultLoggerFactory(),
	})
	must(err, "client")
	must(client.Listen(), "listen")
	relay, err := client.Allocate()
	must(err, "allocate")
	to, err := net.ResolveUDPAddr("udp", peer)
	must(err, "peer")
	echoed := 0
	buffer := make([]byte, 2048)
	for i := 0; i < 10; i++ {
		message := fmt.Sprintf("message %d", i)
		_, err = relay.WriteTo([]byte(message), to)
		must(err, "write")
		must(relay.SetReadDeadline(time.Now().Add(10*time.Second)), "deadline")
		n, from, err := relay.ReadFrom(buffer)
		must(err, "read")
		if string(buffer[:n]) == message && from.String() == peer {
			echoed++
		}
	}
	fmt.Println("echoed", echoed)
	must(relay.Close(), "close")
	client.Close()
	must(conn.Close(), "end")
}
