// A time-limited TURN credential, made without asking the server.
//
// Usage: go run mint.go SECRET_FILE USER TTL_SECONDS
package main

import (
	"crypto/hmac"
	"crypto/sha1"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

type credential struct {
	Username   string `json:"username"`
	Credential string `json:"credential"`
}

// mint makes the credential of user, good for ttl.
func mint(secret, user string, ttl time.Duration) credential {
	username := fmt.Sprintf("%d:%s", time.Now().Add(ttl).Unix(), user)
	mac := hmac.New(sha1.New, []byte(secret))
	mac.Write([]byte(username))
	return credential{username, base64.StdEncoding.EncodeToString(mac.Sum(nil))}
}

func main() {
	secret, err := os.ReadFile(os.Args[1])
	if err != nil {
		panic(err)
	}
	ttl, err := strconv.Atoi(os.Args[3])
	if err != nil {
		panic(err)
	}
	minted := mint(strings.TrimRight(string(secret), "\r\n"), os.Args[2], time.Duration(ttl)*time.Second)
	if err := json.NewEncoder(os.Stdout).Encode(minted); err != nil {
		panic(err)
	}
}
