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
// password, and its statistics and its log can't hold it.
//
// Passwords are of this program's making, 26 letters and digits of 130 random bits (rand.Text). The thousands of rounds that RFC 7677 asks for are
// to make the guessing of what people choose dear; nobody guesses 130 bits, and of such a secret one round of an approved hash is to be kept
// (NIST SP 800-63B §5.1.2.2). Each round is paid by the server when a role is made, to see that its password isn't empty, and by a
// service at each connection.
func scramVerifier(password string) (string, error) {
	const fewest, iterations, saltLength = 26, 1, 16
	if len(password) < fewest {
		return "", fmt.Errorf("a role's password has %d characters, and one round of hashing is safe only for generated ones of %d or more: remove the file of its connection string, and a new one is made", len(password), fewest)
	}
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
