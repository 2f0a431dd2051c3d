package workload

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"testing"
	"time"

	"a3os.app/libs/id"
)

// FuzzParseCertificates reads roots and chains. The oracles are encoding/pem and crypto/x509: what is read is all that stands there, and
// written again it is the same certificates.
func FuzzParseCertificates(f *testing.F) {
	plane, tenant := seeds(f)
	for _, s := range [][]byte{
		plane, tenant, append(bytes.Clone(plane), tenant...), append([]byte("text\n"), plane...), append(bytes.Clone(plane), "text"...), {}, plane[:len(plane)-10],
		bytes.ReplaceAll(plane, []byte("CERTIFICATE"), []byte("PRIVATE KEY")), bytes.ReplaceAll(plane, []byte("\n"), []byte("\r\n")),
		pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Headers: map[string]string{"Proc-Type": "4,ENCRYPTED"}, Bytes: []byte("x")}),
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		got, err := parseCertificates(text)
		if err != nil {
			if len(got) > 0 {
				t.Fatalf("refused and read: %v", err)
			}
			return
		}
		if bytes.Count(text, []byte("-----BEGIN")) < len(got) || len(got) == 0 {
			t.Fatalf("%d certificates were read of %q", len(got), text)
		}
		again, err := parseCertificates(encodeCertificates(got...))
		if err != nil || len(again) != len(got) {
			t.Fatalf("written and read again: %v", err)
		}
		pool := x509.NewCertPool()
		if !pool.AppendCertsFromPEM(encodeCertificates(got...)) {
			t.Fatal("crypto/x509 reads none of what was read")
		}
		for i := range got {
			if !again[i].Equal(got[i]) {
				t.Fatalf("certificate %d is another when it is written and read again", i)
			}
		}
	})
}

// FuzzParsePair reads a key with its chain: what is believed fits together.
func FuzzParsePair(f *testing.F) {
	plane, _ := seeds(f)
	f.Add(plane)
	f.Add([]byte{})
	key, err := newKey()
	if err != nil {
		f.Fatal(err)
	}
	alone, err := encodePair(key)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(alone)
	f.Add(append(bytes.Clone(alone), plane...))
	f.Fuzz(func(t *testing.T, text []byte) {
		key, certificates, err := parsePair(text)
		if err != nil {
			return
		}
		if err := matches(key, certificates[0]); err != nil {
			t.Fatal(err)
		}
		written, err := encodePair(key, certificates...)
		if err != nil {
			t.Fatal(err)
		}
		if _, again, err := parsePair(written); err != nil || !again[0].Equal(certificates[0]) {
			t.Fatalf("written and read again: %v", err)
		}
	})
}

// seeds are two authorities' certificates.
func seeds(f *testing.F) (one, other []byte) {
	f.Helper()
	for domain, into := range map[TrustDomain]*[]byte{{Plane: "dev"}: &one, {Plane: "dev", Tenant: id.NewTenant()}: &other} {
		root, err := NewRoot(domain, time.Now())
		if err != nil {
			f.Fatal(err)
		}
		*into = encodeCertificates(root.certificate)
	}
	return one, other
}
