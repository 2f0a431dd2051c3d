package local

import (
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
)

// scramVerifier is what a PostgreSQL server keeps of a password (RFC 5803, as PostgreSQL writes it). Given that, it never hears the
// password, and its statistics and its log can't hold it. Passwords are of this program's making, plain ASCII: there is nothing to prepare.
func scramVerifier(password string) (string, error) {
	// What PostgreSQL takes itself (common/scram-common.h).
	const iterations, saltLength = 4096, 16
	salt := make([]byte, saltLength)
	_, _ = rand.Read(salt) // it never fails
	salted, err := pbkdf2.Key(sha256.New, password, salt, iterations, sha256.Size)
	if err != nil {
		return "", fmt.Errorf("hash a password: %w", err)
	}
	of := func(what string) []byte {
		mac := hmac.New(sha256.New, salted)
		mac.Write([]byte(what))
		return mac.Sum(nil)
	}
	stored := sha256.Sum256(of("Client Key"))
	text := base64.StdEncoding.EncodeToString
	return fmt.Sprintf("SCRAM-SHA-256$%d:%s$%s:%s", iterations, text(salt), text(stored[:]), text(of("Server Key"))), nil
}
