package workload

import (
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
)

var subjectAltName = asn1.ObjectIdentifier{2, 5, 29, 17}

// FromCertificate reads the identity that a certificate claims. It proves nothing: who signed the claim is Peer's question. Refused
// are certificates without exactly one URI SAN, with one that ParseURI refuses, and those that a leaf must not be (X509-SVID §4:
// authorities, keys that sign certificates).
func FromCertificate(certificate *x509.Certificate) (Identity, error) {
	if certificate == nil {
		return Identity{}, errors.New("there is no certificate to read an identity from")
	}
	if certificate.IsCA || certificate.KeyUsage&(x509.KeyUsageCertSign|x509.KeyUsageCRLSign) != 0 {
		return Identity{}, errors.New("the certificate is an authority's: authorities vouch for workloads and are none")
	}
	if certificate.KeyUsage&x509.KeyUsageDigitalSignature == 0 {
		return Identity{}, errors.New("the certificate's key is not for digital signatures, which TLS needs")
	}
	uris, err := uriNames(certificate)
	if err != nil {
		return Identity{}, err
	}
	if len(uris) != 1 {
		return Identity{}, fmt.Errorf("the certificate has %d URI names, a workload's has exactly one", len(uris))
	}
	return ParseURI(uris[0])
}

// uriNames are the URI SANs as they stand in the certificate. Certificate.URIs won't do: it went through url.Parse, which folds
// the scheme's case and drops an empty fragment, so that two certificates that differ would read the same.
func uriNames(certificate *x509.Certificate) ([]string, error) {
	const uniformResourceIdentifier = 6 // RFC 5280 §4.2.1.6, GeneralName
	var uris []string
	for _, extension := range certificate.Extensions {
		if !extension.Id.Equal(subjectAltName) {
			continue
		}
		var names []asn1.RawValue
		if rest, err := asn1.Unmarshal(extension.Value, &names); err != nil || len(rest) != 0 {
			return nil, errors.New("the certificate's alternative names can't be read")
		}
		for _, name := range names {
			if name.Class == asn1.ClassContextSpecific && name.Tag == uniformResourceIdentifier {
				uris = append(uris, string(name.Bytes))
			}
		}
	}
	return uris, nil
}
