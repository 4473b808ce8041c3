// pion/turn as its multi-listener example has it: one SO_REUSEPORT listener for
// each core. Usage: pion <ip> <port> <secret>, for REST credentials.
package main

import (
	"context"
	"crypto/hmac"
	"crypto/sha1"
	"encoding/base64"
	"log"
	"net"
	"os"
	"runtime"
	"syscall"

	"github.com/pion/turn/v2"
)

const soReusePort = 15

func listen(address string) net.PacketConn {
	config := net.ListenConfig{Control: func(_, _ string, conn syscall.RawConn) error {
		var failed error
		if err := conn.Control(func(fd uintptr) {
			failed = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, soReusePort, 1)
		}); err != nil {
			return err
		}
		return failed
	}}
	conn, err := config.ListenPacket(context.Background(), "udp4", address)
	if err != nil {
		log.Fatal(err)
	}
	return conn
}

func main() {
	ip, port, secret := os.Args[1], os.Args[2], os.Args[3]
	var listeners []turn.PacketConnConfig
	for i := 0; i < runtime.NumCPU(); i++ {
		listeners = append(listeners, turn.PacketConnConfig{
			PacketConn: listen(net.JoinHostPort(ip, port)),
			RelayAddressGenerator: &turn.RelayAddressGeneratorStatic{
				RelayAddress: net.ParseIP(ip),
				Address:      ip,
			},
		})
	}
	_, err := turn.NewServer(turn.ServerConfig{
		Realm: "bench.invalid",
		AuthHandler: func(username, realm string, _ net.Addr) ([]byte, bool) {
			mac := hmac.New(sha1.New, []byte(secret))
			mac.Write([]byte(username))
			password := base64.StdEncoding.EncodeToString(mac.Sum(nil))
			return turn.GenerateAuthKey(username, realm, password), true
		},
		PacketConnConfigs: listeners,
	})
	if err != nil {
		log.Fatal(err)
	}
	select {}
}
