// Package operator is the directory of an operator whose key is their own: made on a machine of theirs, where it stays. It promises that a
// key is never overwritten and readable by its owner alone, that what the plane's machine gets is a signing request and what comes back holds no
// secret, and that a certificate is taken only over that key, for that name, and under the roots of the plane that was taken first. It relies
// on its user for what came over the wire between the two machines: who hands a request over is who the plane's people take them for.
package operator

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/google/renameio/v2"
	"google.golang.org/grpc"

	"a3os.app/libs/workload"
	"a3os.app/tools/fleet/internal/asked"
)

// Files of a directory.
const (
	keyFile     = "key.pem"
	requestFile = "request.pem"
	planeFile   = "plane.json"

	requestBlock = "CERTIFICATE REQUEST"
	keyBlock     = "PRIVATE KEY" // PKCS #8
	// maxFile bounds what is read of a file that somebody handed over.
	maxFile = 256 << 10
)

// Dir is an operator's directory, mode 0700.
type Dir string

// Bundle is what the plane's machine hands back. Nothing in it is a secret.
type Bundle struct {
	// Plane is `dev` or `prod`, Name the operator's.
	Plane string `json:"plane"`
	Name  string `json:"name"`
	// Registry is where the plane's registry is, host:port, and Service its name in its certificate.
	Registry string `json:"registry"`
	Service  string `json:"service"`
	// Roots are the plane's and Certificates the operator's, leaf first, PEM.
	Roots        string `json:"roots"`
	Certificates string `json:"certificates"`
}

// Request is what an operator asks for: a certificate over their key.
type Request struct {
	// Name of the operator.
	Name string
	// DER is the signing request (PKCS #10).
	DER []byte
	// Fingerprint is the SHA-256 of the key's SubjectPublicKeyInfo, in hexadecimal.
	Fingerprint string
}

// Request makes the directory's key and its request, or answers the one that there is. made says whether the key was made now.
func (d Dir) Request(name string) (text []byte, made bool, err error) {
	if err := d.private(); err != nil {
		return nil, false, err
	}
	key, made, err := d.makeKey()
	if err != nil {
		return nil, made, err
	}
	text, err = os.ReadFile(d.file(requestFile))
	if err == nil {
		r, err := ParseRequest(text)
		switch {
		case err != nil:
			return nil, made, fmt.Errorf("%s: %w", d.file(requestFile), err)
		case r.Name != name:
			return nil, made, fmt.Errorf("%s is the directory of operator %s: choose another for %s with --dir", d, r.Name, name)
		case r.Fingerprint != hexOf(key.Public()):
			return nil, made, fmt.Errorf("%s is over another key than %s: move it away, and ask anew", d.file(requestFile), d.file(keyFile))
		}
		return text, made, nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return nil, made, fmt.Errorf("read the request: %w", err)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: workload.OperatorPrefix + name}}, key)
	if err != nil {
		return nil, made, fmt.Errorf("make the request: %w", err)
	}
	text = pem.EncodeToMemory(&pem.Block{Type: requestBlock, Bytes: der})
	return text, made, d.write(requestFile, text)
}

// ParseRequest reads a request, and believes it where its signature proves that whoever made it holds the key.
func ParseRequest(text []byte) (Request, error) {
	block, rest := pem.Decode(text)
	if block == nil || block.Type != requestBlock || strings.TrimSpace(string(rest)) != "" {
		return Request{}, fmt.Errorf("it is no request: want one PEM block %q, as fleet operator request prints it", requestBlock)
	}
	csr, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		return Request{}, fmt.Errorf("read the request: %w", err)
	}
	if err := csr.CheckSignature(); err != nil {
		return Request{}, fmt.Errorf("the request doesn't prove that who made it holds the key: %w", err)
	}
	if _, is := csr.PublicKey.(*ecdsa.PublicKey); !is {
		return Request{}, fmt.Errorf("the request is over a %T, want ECDSA P-256, as fleet operator request makes it", csr.PublicKey)
	}
	name, is := strings.CutPrefix(csr.Subject.CommonName, workload.OperatorPrefix)
	if !is {
		return Request{}, errors.New("the request names no operator: fleet operator request NAME makes one that does")
	}
	return Request{Name: name, DER: block.Bytes, Fingerprint: hexOf(csr.PublicKey)}, nil
}

// ReadFile reads a file that was handed over, of a bounded size.
func ReadFile(path string) ([]byte, error) {
	f, err := os.Open(path) //nolint:gosec // G304: the user names it
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	text, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err == nil && len(text) > maxFile {
		err = fmt.Errorf("%s is longer than %d octets, and nothing that is to be read here is", path, maxFile)
	}
	return text, err
}

// ParseBundle reads a bundle; what it says is checked against a key by Accept.
func ParseBundle(text []byte) (Bundle, error) {
	var b Bundle
	d := json.NewDecoder(strings.NewReader(string(text)))
	d.DisallowUnknownFields()
	if err := d.Decode(&b); err != nil {
		return b, fmt.Errorf("it is not what fleet operator add writes: %w", err)
	}
	return b, nil
}

// Accept takes a bundle: its certificate must be over the directory's own key, for the name that was asked for, and under the bundle's roots,
// which must be those of the plane that was accepted before, where one was. registry is where the plane's registry is reached from here; empty
// is what the bundle says.
func (d Dir) Accept(b Bundle, registry string) (*Operator, error) {
	if err := d.private(); err != nil {
		return nil, err
	}
	if registry != "" {
		b.Registry = registry
	}
	if _, _, err := net.SplitHostPort(b.Registry); err != nil {
		return nil, fmt.Errorf("the registry is at %q: want host:port: %w", b.Registry, err)
	}
	key, err := d.key()
	if err != nil {
		return nil, fmt.Errorf("there is no key that a certificate could be over: fleet operator request makes one: %w", err)
	}
	request, err := os.ReadFile(d.file(requestFile))
	if err != nil {
		return nil, fmt.Errorf("read what was asked for: %w", err)
	}
	asked, err := ParseRequest(request)
	if err != nil {
		return nil, err
	}
	if asked.Name != b.Name {
		return nil, fmt.Errorf("the certificate is for operator %s, and %s is the directory of %s", b.Name, d, asked.Name)
	}
	pair, err := workload.NewKeypair(key, []byte(b.Certificates))
	if err != nil {
		return nil, err
	}
	if err := b.vouches(pair); err != nil {
		return nil, err
	}
	before, err := d.plane()
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if err == nil && (before.Plane != b.Plane || strings.TrimSpace(before.Roots) != strings.TrimSpace(b.Roots)) {
		return nil, fmt.Errorf("the certificate is of another plane than the one that this directory is for, its roots are others: where that is meant, move %s away first", d.file(planeFile))
	}
	b.Certificates = ""
	text, err := json.MarshalIndent(b, "", "  ")
	if err != nil {
		return nil, err
	}
	if err := d.write(planeFile, append(text, '\n')); err != nil {
		return nil, err
	}
	if err := pair.Save(string(d)); err != nil {
		return nil, err
	}
	return Open(string(d))
}

// vouches says why a bundle's roots don't prove that its certificate is the operator's, or nil.
func (b Bundle) vouches(pair workload.Keypair) error {
	who := workload.Identity{Plane: b.Plane, Service: workload.OperatorPrefix + b.Name}
	if pair.Identity() != who {
		return fmt.Errorf("the certificate is of %s, want %s", pair.Identity(), who)
	}
	roots, err := workload.ParseRoots(who.TrustDomain(), []byte(b.Roots))
	if err != nil {
		return err
	}
	var chain []*x509.Certificate
	for rest := []byte(b.Certificates); ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return fmt.Errorf("read a certificate: %w", err)
		}
		chain = append(chain, c)
	}
	_, _, err = workload.Peer(tls.ConnectionState{PeerCertificates: chain}, workload.Trust{Plane: b.Plane, PlaneRoots: roots})
	return err
}

// Operator is an operator who can work from their directory.
type Operator struct {
	// Bundle is the plane's, less the certificates.
	Bundle
	// Source is the operator's keypair.
	Source *workload.Source
	// Fingerprint of their key.
	Fingerprint string
}

// Open reads a directory that a certificate was accepted into.
func Open(dir string) (*Operator, error) {
	d := Dir(dir)
	b, err := d.plane()
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("no plane's certificate was accepted into %s: fleet operator accept FILE --dir %s takes what fleet operator add NAME --request FILE --reason TEXT wrote on the plane's machine", dir, dir)
	}
	if err != nil {
		return nil, err
	}
	who := workload.Identity{Plane: b.Plane, Service: workload.OperatorPrefix + b.Name}
	source, err := workload.OpenSource(dir, who)
	if err != nil {
		return nil, err
	}
	if end := source.NotAfter(); !time.Now().Before(end) {
		// The registry would shut its door on it, and that looks as if nobody were there.
		return nil, fmt.Errorf("your certificate as operator %s ended at %s: on the plane's machine, with A3_OPERATOR_DIR unset, fleet operator add %s --request FILE --reason TEXT issues another, over the same key, and fleet operator accept FILE --dir %s takes it",
			b.Name, end.UTC().Format(time.RFC3339), b.Name, dir)
	}
	sum := sha256.Sum256(source.Leaf().RawSubjectPublicKeyInfo)
	return &Operator{Bundle: b, Source: source, Fingerprint: hex.EncodeToString(sum[:])}, nil
}

// Dial connects to the plane's registry, when it is used.
func (o *Operator) Dial(opts ...grpc.DialOption) (*grpc.ClientConn, error) {
	domain := workload.TrustDomain{Plane: o.Plane}
	roots, err := workload.ParseRoots(domain, []byte(o.Roots))
	if err != nil {
		return nil, err
	}
	creds, err := workload.GRPCClientCredentials(o.Source, workload.Trust{Plane: o.Plane, PlaneRoots: roots}, workload.Identity{Plane: o.Plane, Service: o.Service})
	if err != nil {
		return nil, err
	}
	return grpc.NewClient("passthrough:///"+o.Registry, append([]grpc.DialOption{asked.Named(), grpc.WithTransportCredentials(creds)}, opts...)...)
}

func (d Dir) file(name string) string { return filepath.Join(string(d), name) }

// private makes the directory, or refuses one that others can look into.
func (d Dir) private() error {
	if err := os.MkdirAll(string(d), 0o700); err != nil {
		return fmt.Errorf("make the operator's directory: %w", err)
	}
	info, err := os.Stat(string(d))
	if err != nil {
		return err
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		return fmt.Errorf("%s has mode %04o: a directory of keys is nobody else's: chmod 700 %s, or choose another with --dir", d, mode, d)
	}
	return nil
}

// plane is what was accepted; it fails with fs.ErrNotExist where nothing was.
func (d Dir) plane() (Bundle, error) {
	text, err := ReadFile(d.file(planeFile))
	if err != nil {
		return Bundle{}, err
	}
	b, err := ParseBundle(text)
	if err != nil {
		return b, fmt.Errorf("%s: %w", d.file(planeFile), err)
	}
	return b, nil
}

// key reads the directory's key; it fails with fs.ErrNotExist where there is none.
func (d Dir) key() (crypto.Signer, error) {
	info, err := os.Stat(d.file(keyFile))
	if err != nil {
		return nil, err
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		return nil, fmt.Errorf("%s has mode %04o, so that others can read the key: ask anew in another directory, and have this key removed", d.file(keyFile), mode)
	}
	text, err := ReadFile(d.file(keyFile))
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(text)
	if block == nil || block.Type != keyBlock {
		return nil, fmt.Errorf("%s: there is no PEM block %q", d.file(keyFile), keyBlock)
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("%s: the key can't be read, want PKCS #8", d.file(keyFile))
	}
	key, is := parsed.(crypto.Signer)
	if !is {
		return nil, fmt.Errorf("%s: the key is a %T, which can't sign", d.file(keyFile), parsed)
	}
	return key, nil
}

// makeKey makes the directory's key where there is none. It comes into its place whole, and only where nothing is.
func (d Dir) makeKey() (key crypto.Signer, made bool, err error) {
	if key, err = d.key(); !errors.Is(err, fs.ErrNotExist) {
		return key, false, err
	}
	_, key, err = workload.NewRequest()
	if err != nil {
		return nil, false, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, false, fmt.Errorf("encode the key: %w", err)
	}
	f, err := os.CreateTemp(string(d), ".key-") // mode 0600
	if err != nil {
		return nil, false, fmt.Errorf("write the key: %w", err)
	}
	defer func() { _ = os.Remove(f.Name()) }()
	err = errors.Join(pem.Encode(f, &pem.Block{Type: keyBlock, Bytes: der}), f.Sync(), f.Close())
	if err == nil {
		err = os.Link(f.Name(), d.file(keyFile))
	}
	if err != nil {
		return nil, false, fmt.Errorf("write the key: %w", err)
	}
	return key, true, nil
}

func (d Dir) write(name string, text []byte) error {
	if err := renameio.WriteFile(d.file(name), text, 0o600, renameio.WithTempDir(string(d)), renameio.WithStaticPermissions(0o600)); err != nil {
		return fmt.Errorf("write %s: %w", d.file(name), err)
	}
	return nil
}

// hexOf is a key's fingerprint; empty for one that has no encoding.
func hexOf(public crypto.PublicKey) string {
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		return ""
	}
	sum := sha256.Sum256(der)
	return hex.EncodeToString(sum[:])
}
