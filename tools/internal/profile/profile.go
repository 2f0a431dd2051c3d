// Package profile keeps who somebody is at a tenant: where the tenant is, and the credential that gets access tokens there, in one
// file a name under `$A3_HOME/profiles`. It promises that a file is whole whenever it is read, that nobody but its owner reads it,
// and that programs which refresh one session at once do not lose a rotation. It relies on the tenant's issuer for what a token may do.
package profile

import (
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"
)

// Profile is one identity at one tenant. It holds a secret: don't print it.
type Profile struct {
	// Name is what the file is called, without `.json`: lower-case letters, digits, `.`, `_` and `-`.
	Name string `json:"-"`
	// URL is the tenant's issuer and the base of its API: `https://acme.localhost:7443`.
	URL string `json:"url"`
	// Slug is the tenant's short name; empty when it isn't known.
	Slug string `json:"slug,omitempty"`
	// CACert is a PEM file with the only authorities to trust, absolute or relative to the home; empty for the machine's own.
	CACert string `json:"ca_cert,omitempty"`
	// DialAddress is the `host:port` to connect to, whatever the URL's host; empty to resolve the host. Names below `localhost`
	// don't resolve everywhere.
	DialAddress string `json:"dial_address,omitempty"`
	// WorkspaceID is the workspace that commands work in unless they are told another (`wsp_…`); empty for none.
	WorkspaceID string `json:"workspace_id,omitempty"`
	// Principal is the address or name of who this is, for people to read.
	Principal string `json:"principal,omitempty"`
	// RefreshToken is a person's credential. It changes with every refresh.
	RefreshToken string `json:"refresh_token,omitempty"`
	// ServiceAccountID is a program's `svc_…`; empty for a person.
	ServiceAccountID string `json:"service_account_id,omitempty"`
	// PrivateKey is the file of a program's key (PKCS #8 PEM, ECDSA P-256), absolute or relative to the home.
	PrivateKey string `json:"private_key,omitempty"`
	// Access are access tokens that may still be good, by workspace; the tenant-wide one is under the empty string.
	Access map[string]Access `json:"access,omitempty"`
}

// Access is an access token and its end.
type Access struct {
	// Token is the token.
	Token string `json:"token"`
	// ExpiresAt is when it stops working.
	ExpiresAt time.Time `json:"expires_at"`
}

var nameForm = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,62}$`)

// CheckName refuses what can't be a profile's name.
func CheckName(name string) error {
	if !nameForm.MatchString(name) {
		return fmt.Errorf("%q can't be a profile's name: use up to 63 lower-case letters, digits, dots and dashes", name)
	}
	return nil
}

// Check refuses a profile that can't work, in words.
func (p *Profile) Check() error {
	if err := CheckName(p.Name); err != nil {
		return err
	}
	if _, err := CleanURL(p.URL); err != nil {
		return err
	}
	switch {
	case p.RefreshToken == "" && p.ServiceAccountID == "":
		return fmt.Errorf("profile %q has no credential: sign in with `a3 login`", p.Name)
	case p.ServiceAccountID != "" && p.PrivateKey == "":
		return fmt.Errorf("profile %q is of a service account and names no key: sign in with `a3 login --url URL --service-account ID --key FILE`", p.Name)
	}
	return nil
}

// CleanURL is a tenant's base URL without a slash at its end. Anything but https with a host is refused: tokens would travel in the clear.
func CleanURL(raw string) (string, error) {
	u, err := url.Parse(strings.TrimSuffix(raw, "/"))
	if err != nil || u.Scheme != "https" || u.Host == "" || u.Path != "" || u.RawQuery != "" || u.Fragment != "" || u.User != nil {
		return "", fmt.Errorf("%q is not a tenant's URL: give it as https://acme.example.com", raw)
	}
	return u.String(), nil
}

// Home is the directory of everything that is kept on this machine: `A3_HOME`, or `.a3` beside the `bin` directory that this program
// lies in, or `.a3` in the working directory.
func Home() (string, error) {
	if home := os.Getenv("A3_HOME"); home != "" {
		return filepath.Abs(home)
	}
	if exe, err := os.Executable(); err == nil {
		if real, err := filepath.EvalSymlinks(exe); err == nil {
			exe = real
		}
		if dir := filepath.Dir(exe); filepath.Base(dir) == "bin" {
			return filepath.Join(filepath.Dir(dir), ".a3"), nil
		}
	}
	wd, err := os.Getwd()
	if err != nil {
		return "", errors.New("can't tell where the profiles are: set A3_HOME")
	}
	return filepath.Join(wd, ".a3"), nil
}
