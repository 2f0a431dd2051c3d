package calls

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"a3os.app/libs/authn"
	"a3os.app/libs/authz"
	"a3os.app/libs/id"
	"a3os.app/libs/workload"
)

const (
	plane   = "dev"
	issuer  = "https://bench.localhost"
	service = "discovery"

	// principals is how many people call in turn: more than one, so that caches and the shares of admission have work to do.
	principals = 16
	// revoked is how many revocations every token is held against.
	revoked = 500
)

// Names of the files of a world.
const (
	tenantFile   = "tenant"
	keySetFile   = "keys.json"
	tenantRoots  = "tenant-roots.pem"
	planeRoots   = "plane-roots.pem"
	serverDir    = "server"
	gatewayDir   = "gateway"
	mode0600     = 0o600
	mode0700     = 0o700
	runID        = "run_01h455vb4pex5vsknk084sn02q"
	integration  = "int_01h455vb4pex5vsknk084sn02q"
	tokenKeyID   = "k1"
	tokensLiveIn = authn.MaxLifetime
)

// world is a tenant as its service and the gateway see it: files of certificates and public keys, which the server processes read.
// The key that signs tokens stays with the driver.
type world struct {
	dir    string
	tenant id.Tenant
	key    *ecdsa.PrivateKey
}

// newWorld makes a tenant's files in dir.
func newWorld(dir string) (world, error) {
	w := world{dir: dir, tenant: id.NewTenant()}
	var err error
	if w.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		return w, err
	}
	keys, err := keySet(&w.key.PublicKey)
	if err != nil {
		return w, err
	}
	files := map[string][]byte{tenantFile: []byte(w.tenant.String()), keySetFile: keys}
	for _, p := range []struct {
		who        workload.Identity
		dir, roots string
	}{
		{workload.Identity{Plane: plane, Tenant: w.tenant, Service: service}, serverDir, tenantRoots},
		{workload.Identity{Plane: plane, Service: "gateway"}, gatewayDir, planeRoots},
	} {
		if files[p.roots], err = issue(p.who, filepath.Join(dir, p.dir)); err != nil {
			return w, err
		}
	}
	for name, raw := range files {
		if err := os.WriteFile(filepath.Join(dir, name), raw, mode0600); err != nil {
			return w, err
		}
	}
	return w, nil
}

// keySet is a JSON Web Key Set (RFC 7517) of one P-256 key (RFC 7518 §6.2.1).
func keySet(key *ecdsa.PublicKey) ([]byte, error) {
	// An uncompressed point: 0x04, then both coordinates.
	point, err := key.Bytes()
	if err != nil {
		return nil, err
	}
	const octets = 32
	x, y := base64.RawURLEncoding.EncodeToString(point[1:1+octets]), base64.RawURLEncoding.EncodeToString(point[1+octets:])
	return json.Marshal(map[string]any{"keys": []map[string]string{
		{"kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "kid": tokenKeyID, "x": x, "y": y},
	}})
}

// issue makes an authority for who's trust domain and a keypair for who in dir, and answers the authority's certificate.
func issue(who workload.Identity, dir string) (rootPEM []byte, err error) {
	now := time.Now()
	root, err := workload.NewRoot(who.TrustDomain(), now)
	if err != nil {
		return nil, err
	}
	issuing, err := root.NewIntermediate(now)
	if err != nil {
		return nil, err
	}
	pair, err := issuing.IssueKeypair(who, now)
	if err != nil {
		return nil, err
	}
	if err := os.Mkdir(dir, mode0700); err != nil {
		return nil, err
	}
	return root.CertificatePEM(), pair.Save(dir)
}

// open reads the files of a world.
func open(dir string) (world, workload.Trust, error) {
	w, trust := world{dir: dir}, workload.Trust{Plane: plane}
	raw, err := os.ReadFile(filepath.Join(dir, tenantFile))
	if err != nil {
		return w, trust, err
	}
	if w.tenant, err = id.ParseTenant(string(raw)); err != nil {
		return w, trust, err
	}
	trust.Tenant = w.tenant
	if raw, err = os.ReadFile(filepath.Join(dir, tenantRoots)); err != nil {
		return w, trust, err
	}
	if trust.TenantRoots, err = workload.ParseRoots(w.server().TrustDomain(), raw); err != nil {
		return w, trust, err
	}
	if raw, err = os.ReadFile(filepath.Join(dir, planeRoots)); err != nil {
		return w, trust, err
	}
	trust.PlaneRoots, err = workload.ParseRoots(w.gateway().TrustDomain(), raw)
	return w, trust, err
}

func (w world) server() workload.Identity {
	return workload.Identity{Plane: plane, Tenant: w.tenant, Service: service}
}

func (w world) gateway() workload.Identity {
	return workload.Identity{Plane: plane, Service: "gateway"}
}

// tokens are access tokens of members of one workspace.
func (w world) tokens() ([]string, error) {
	now, workspace := time.Now(), id.NewWorkspace().String()
	var tokens []string
	for range principals {
		t := jwt.NewWithClaims(jwt.SigningMethodES256, authn.TokenClaims{
			RegisteredClaims: jwt.RegisteredClaims{
				Issuer: issuer, Subject: id.NewUser().String(), Audience: jwt.ClaimStrings{issuer + "/api"}, ID: id.NewToken().String(),
				IssuedAt: jwt.NewNumericDate(now), ExpiresAt: jwt.NewNumericDate(now.Add(tokensLiveIn)),
			},
			TenantID: w.tenant.String(), WorkspaceID: workspace, Roles: []string{authz.WorkspaceMember}, SessionID: id.NewSession().String(),
			Revision: revoked,
		})
		t.Header["typ"], t.Header["kid"] = authn.TokenType, tokenKeyID
		text, err := t.SignedString(w.key)
		if err != nil {
			return nil, fmt.Errorf("sign a token: %w", err)
		}
		tokens = append(tokens, text)
	}
	return tokens, nil
}
