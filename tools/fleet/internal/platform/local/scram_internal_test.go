package local

import (
	"crypto/rand"
	"strings"
	"testing"
)

// A short password, which somebody may have chosen, is kept by no single round of a hash; two verifiers of one password differ.
func TestVerifierIsOfARandomPasswordAlone(t *testing.T) {
	if v, err := scramVerifier("correct horse battery"); err == nil {
		t.Errorf("a password that somebody chose has the verifier %s", v)
	}
	password := rand.Text()
	one, err := scramVerifier(password)
	if err != nil {
		t.Fatal(err)
	}
	other, err := scramVerifier(password)
	if err != nil || one == other || !strings.HasPrefix(one, "SCRAM-SHA-256$1:") || strings.Contains(one, password) {
		t.Errorf("the verifiers are %s and %s, %v", one, other, err)
	}
}
