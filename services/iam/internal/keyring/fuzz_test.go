package keyring_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"testing"

	"a3os.app/services/iam/internal/keyring"
)

// FuzzParsePublic holds that what is taken for a key is a point of P-256, and that one key has one id however it was written.
func FuzzParsePublic(f *testing.F) {
	for _, curve := range []elliptic.Curve{elliptic.P256(), elliptic.P384()} {
		key, err := ecdsa.GenerateKey(curve, rand.Reader)
		if err != nil {
			f.Fatal(err)
		}
		der, err := x509.MarshalPKIXPublicKey(key.Public())
		if err != nil {
			f.Fatal(err)
		}
		f.Add(der)
		f.Add(append(der, 0))
		f.Add(der[:len(der)-1])
	}
	f.Fuzz(func(t *testing.T, der []byte) {
		key, err := keyring.ParsePublic(der)
		if err != nil {
			return
		}
		if _, err := key.ECDH(); err != nil || key.Curve != elliptic.P256() {
			t.Fatalf("%x is taken for a key: %v", der, err)
		}
		kid, err := keyring.KeyID(key)
		if err != nil {
			t.Fatal(err)
		}
		written, err := x509.MarshalPKIXPublicKey(key)
		if err != nil {
			t.Fatal(err)
		}
		again, err := keyring.ParsePublic(written)
		if err != nil || !again.Equal(key) {
			t.Fatalf("written and read again: %v", err)
		}
		if other, err := keyring.KeyID(again); err != nil || other != kid {
			t.Fatalf("one key has the ids %s and %s, %v", kid, other, err)
		}
	})
}
