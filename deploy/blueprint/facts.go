package blueprint

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"text/template"
)

// Facts is what a platform knows about one component of one set: what templates are filled with. A platform fills in what the
// component needs; what it doesn't need stays empty, and a template that mentions it fails.
type Facts struct {
	// Plane is `dev` or `prod`; Release is version and digest of what runs.
	Plane, Release string
	// Tenant is `tnt_…`, Slug its slug, URL where its people reach it; empty in a set of the plane.
	Tenant, Slug, URL string
	// LogLevel is `debug`, `info`, `warn` or `error`.
	LogLevel string
	// Certificates is the directory of the component's keypair; TenantRoots and PlaneRoots are files.
	Certificates, TenantRoots, PlaneRoots string
	// MarkKeys are the public keys that the marks of the plane's resources are verified with.
	MarkKeys string
	// ReleaseKeys are the public keys that releases are verified with, and LicenceKeys those of licences.
	ReleaseKeys string
	LicenceKeys string
	// LicencePath is the file with the tenant's licence; it need not be there.
	LicencePath string
	// KeyService is the place of the set's key in a key service, as `awskms://arn:…`; empty where the platform has none, and for who doesn't need it.
	KeyService string
	// Queue is the URL of the set's queue of SQS; empty where the queue is the database's own, and for who has nothing to do with it.
	Queue string
	// StateDir is a directory of the component's own.
	StateDir string
	// Copy is where a component keeps a copy of what has to outlive that directory, as `s3://bucket/key`; empty where the directory stays, and for
	// who needs none.
	Copy string
	// MachineAllowed says that the tenant may read the machine that the platform runs on.
	MachineAllowed bool
	// AllowedAddresses are those of the platform's own machine that the tenant's work may reach, `host:port`, joined by commas.
	AllowedAddresses string
	// Domain is the name below which tenants have their hosts, ApexSlug whom the bare name leads to.
	Domain, ApexSlug string
	// CORSOrigins are the browser origins other than their own host that tenants' pages may call from, joined by commas; empty for none.
	CORSOrigins string
	// TenantRate is how many requests of one tenant begin in a second while others call; `0` is what the gateway holds for right.
	TenantRate string
	// SetNetworks are where sets may be, ReservedAddresses what no set may name; both joined by commas.
	SetNetworks, ReservedAddresses string
	// SetZone is the zone of names that the platform keeps for sets; empty where they are at addresses.
	SetZone string

	// Needed facts by name.
	Addresses      map[string]string // own ports
	PeerAddresses  map[string]map[string]string
	PlaneAddresses map[string]string
	DatabaseURLs   map[string]string // files
	RoleNames      map[string]string
	OwnerURL       string            // file
	KeyFiles       map[string]string // secret halves
	PublicKeys     map[string]string
	StoreDirs      map[string]string
	Authority      string // file
	FirstAdmin     *FirstAdmin
	Recovery       *Recovery
	Restore        *Restore
	Front          *Front
	Machine        *Machine
}

// Machine is where the machine reader answers, a socket's path, the user who may ask it, and the directories of the platform's own that
// stay closed to it, joined by commas. All are empty where the platform keeps none.
type Machine struct{ Socket, Client, Closed string }

// FirstAdmin is the tenant's first admin, who gets in with a code of which CodeHash is the SHA-256 in hex. Both are empty once
// somebody is in.
type FirstAdmin struct{ Email, CodeHash string }

// Recovery is the admin whom an operator lets in again, with a code of which CodeHash is the SHA-256 in hex, and why.
type Recovery struct{ Email, CodeHash, Reason string }

// Restore is the backup that a database was restored from: its name, the moment that it is as of (RFC 3339), and the newest checkpoint of
// the log at that moment; and who restores it, and why.
type Restore struct{ Backup, TakenAt, Checkpoint, Actor, Reason string }

// Front is the certificate that clients see: files.
//
// Socket is the descriptor of a socket that the platform keeps open where the component listens, Keeper the path where such a socket is
// handed over; each is empty where the platform keeps none, or keeps it the other way.
type Front struct{ Certificate, Key, Socket, Keeper string }

func named(what string, in map[string]string, name string) (string, error) {
	v, ok := in[name]
	if !ok {
		return "", fmt.Errorf("%s %q is not among its needs", what, name)
	}
	return v, nil
}

// Address is where the component itself listens, host:port.
func (f Facts) Address(port string) (string, error) { return named("port", f.Addresses, port) }

// Peers is where the set's components listen, as `a=host:port,b=host:port`.
func (f Facts) Peers(port string) (string, error) {
	var out []string
	for _, name := range slices.Sorted(maps.Keys(f.PeerAddresses)) {
		if addr, ok := f.PeerAddresses[name][port]; ok {
			out = append(out, name+"="+addr)
		}
	}
	if len(out) == 0 {
		return "", fmt.Errorf("no component has a port %q", port)
	}
	return strings.Join(out, ","), nil
}

// PlaneAddress is where a service of the control plane listens.
func (f Facts) PlaneAddress(name string) (string, error) {
	return named("plane service", f.PlaneAddresses, name)
}

// DatabaseURLFile is the file with the connection string of a role.
func (f Facts) DatabaseURLFile(role string) (string, error) {
	return named("database role", f.DatabaseURLs, role)
}

// OwnerURLFile is the file with the connection string of the database's owner. Only migrations have it.
func (f Facts) OwnerURLFile() (string, error) {
	if f.OwnerURL == "" {
		return "", errors.New("the owner's URL is for migrations alone")
	}
	return f.OwnerURL, nil
}

// Roles are the real names of the set's roles, as `iam=tnt_x_iam,…`. Only migrations have them.
func (f Facts) Roles() (string, error) {
	if len(f.RoleNames) == 0 {
		return "", errors.New("role names are for migrations alone")
	}
	var out []string
	for _, name := range slices.Sorted(maps.Keys(f.RoleNames)) {
		out = append(out, name+"="+f.RoleNames[name])
	}
	return strings.Join(out, ","), nil
}

// KeyFile is the file with the secret half of a key.
func (f Facts) KeyFile(name string) (string, error) { return named("key", f.KeyFiles, name) }

// PublicKey is the public half of a key.
func (f Facts) PublicKey(name string) (string, error) {
	return named("public key", f.PublicKeys, name)
}

// Store is the directory of a store.
func (f Facts) Store(name string) (string, error) { return named("store", f.StoreDirs, name) }

// IssuingAuthority is the file with the certificate and key that siblings' certificates are issued with.
func (f Facts) IssuingAuthority() (string, error) {
	if f.Authority == "" {
		return "", errors.New("issuing_authority is not among its needs")
	}
	return f.Authority, nil
}

// FirstAdminEmail is the address of the tenant's first admin.
func (f Facts) FirstAdminEmail() (string, error) {
	if f.FirstAdmin == nil {
		return "", errors.New("first_admin is not among its needs")
	}
	return f.FirstAdmin.Email, nil
}

// FirstAdminCodeHash is the SHA-256 in hex of the first admin's setup code.
func (f Facts) FirstAdminCodeHash() (string, error) {
	if f.FirstAdmin == nil {
		return "", errors.New("first_admin is not among its needs")
	}
	return f.FirstAdmin.CodeHash, nil
}

// MachineSocket is where the machine reader answers; empty where there is none.
func (f Facts) MachineSocket() (string, error) {
	if f.Machine == nil {
		return "", errors.New("it is not the client of machine_reader")
	}
	return f.Machine.Socket, nil
}

// MachineClient is the id of the user who may ask the machine reader.
func (f Facts) MachineClient() (string, error) {
	if f.Machine == nil {
		return "", errors.New("it is not the machine reader")
	}
	return f.Machine.Client, nil
}

// MachineClosed are the directories that the machine reader must not see into.
func (f Facts) MachineClosed() (string, error) {
	if f.Machine == nil {
		return "", errors.New("it is not the machine reader")
	}
	return f.Machine.Closed, nil
}

// FrontCertificate is the file with the certificate that clients see.
func (f Facts) FrontCertificate() (string, error) {
	if f.Front == nil {
		return "", errors.New("front_door is not among its needs")
	}
	return f.Front.Certificate, nil
}

// FrontKey is the file with that certificate's key.
func (f Facts) FrontKey() (string, error) {
	if f.Front == nil {
		return "", errors.New("front_door is not among its needs")
	}
	return f.Front.Key, nil
}

// FrontSocket is the descriptor of the socket that the platform keeps open where the component listens; empty where it opens its own.
func (f Facts) FrontSocket() (string, error) {
	if f.Front == nil {
		return "", errors.New("front_door is not among its needs")
	}
	return f.Front.Socket, nil
}

// FrontKeeper is the path where that socket is handed over; empty where nobody does.
func (f Facts) FrontKeeper() (string, error) {
	if f.Front == nil {
		return "", errors.New("front_door is not among its needs")
	}
	return f.Front.Keeper, nil
}

// Text fills in one template.
func (f Facts) Text(text string) (string, error) {
	t, err := template.New("").Option("missingkey=error").Parse(text)
	if err != nil {
		return "", fmt.Errorf("%q is not a template: %w", text, err)
	}
	var out strings.Builder
	if err := t.Execute(&out, f); err != nil {
		var exec template.ExecError
		if errors.As(err, &exec) {
			if cause := rootCause(exec.Err); cause != nil {
				return "", fmt.Errorf("%s: %w", text, cause)
			}
		}
		return "", fmt.Errorf("fill in %q: %w", text, err)
	}
	return out.String(), nil
}

// rootCause is what a method said, without the template engine's words around it; nil where no method spoke.
func rootCause(err error) error {
	for err != nil {
		next := errors.Unwrap(err)
		if next == nil {
			return err
		}
		err = next
	}
	return nil
}

// Environ fills in configurations, later ones over earlier ones, as NAME=value in the order of names. What comes out empty is left
// out: a variable that is set but empty counts as not set.
func (f Facts) Environ(envs ...map[string]string) ([]string, error) {
	merged := map[string]string{}
	for _, e := range envs {
		maps.Copy(merged, e)
	}
	var out []string
	for _, name := range slices.Sorted(maps.Keys(merged)) {
		v, err := f.Text(merged[name])
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		if v != "" {
			out = append(out, name+"="+v)
		}
	}
	return out, nil
}
