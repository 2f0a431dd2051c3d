package aws

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	sdk "github.com/aws/aws-sdk-go-v2/aws"

	"a3os.app/deploy/blueprint"
	"a3os.app/tools/fleet/internal/platform"
	"a3os.app/tools/fleet/internal/platform/aws/session"
	"a3os.app/tools/fleet/internal/platform/aws/stack"
	"a3os.app/tools/fleet/internal/platform/local"
	"a3os.app/tools/fleet/internal/settings"
	"a3os.app/tools/fleet/internal/state"
)

// delegation is what the process that works on a set opens the platform with.
type delegation struct {
	Settings settings.Settings
	// State holds the plane's own places, and one set's.
	State *state.State
	// Where the plane is, which a tenant in an account of its own is not.
	Where platform.Where
	// Environ is how AWS is reached, and who it is there: the provisioner, in a session that reaches one tenant's alone.
	Environ map[string]string
	// Ends is when that session does; by then the process has asked for another.
	Ends time.Time
}

// Variables of the environment with the keys of a session.
const (
	keyVariable    = "AWS_ACCESS_KEY_ID"
	secretVariable = "AWS_SECRET_ACCESS_KEY" //nolint:gosec // the name of one
	tokenVariable  = "AWS_SESSION_TOKEN"     //nolint:gosec // the name of one
)

// reach is what of an operator's environment says how AWS is reached, and nothing of who the operator is.
var reach = []string{"AWS_USE_FIPS_ENDPOINT", "AWS_USE_DUALSTACK_ENDPOINT", bundle, "SSL_CERT_FILE", "SSL_CERT_DIR", "HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "NO_PROXY", "no_proxy"}

// endpoint begins the variables that name one for one service of AWS's, or for all.
const endpoint = "AWS_ENDPOINT_URL"

// bundle names a file of authorities that AWS's endpoints are believed by.
const bundle = "AWS_CA_BUNDLE"

// authorities are where systems keep those that the world's certificates are believed by.
var authorities = []string{"/etc/ssl", "/etc/pki", "/etc/ca-certificates", "/usr/share/ca-certificates", "/usr/local/share/ca-certificates"}

// Delegate implements platform.Platform: the tenant's session, which is taken anew for it and whenever it asks for another (Answer), and what of
// this machine's files is the set's. The operator's own login stays here.
func (p *Platform) Delegate(ctx context.Context, s platform.Set, r platform.Release, _ time.Time) (platform.Delegation, error) {
	var none platform.Delegation
	if err := p.Machine.NotRestoring(s); err != nil {
		return none, err
	}
	// Copies of the set's keys are in it, out of reach of who destroys those.
	if err := local.ClearScratch(p.Settings.Home); err != nil {
		return none, err
	}
	place, keys, err := p.keysOf(ctx, s)
	if err != nil {
		return none, err
	}
	d := delegation{Settings: p.Settings, State: p.State.Part(string(blueprint.ScopePlane), s.Name()), Where: p.where, Ends: keys.Expires, Environ: map[string]string{
		keyVariable: keys.AccessKeyID, secretVariable: keys.SecretAccessKey, tokenVariable: keys.SessionToken, "AWS_REGION": place.Region,
		// It is somebody by these alone.
		"AWS_EC2_METADATA_DISABLED": "true", "AWS_CONFIG_FILE": os.DevNull, "AWS_SHARED_CREDENTIALS_FILE": os.DevNull,
	}}
	images, err := p.imagesOf(s, r)
	if err != nil {
		return none, err
	}
	for key, digest := range images {
		if err := d.State.SetImage(key, digest); err != nil {
			return none, err
		}
	}
	out := platform.Delegation{Steps: []string{platform.StepMigrate, platform.StepStart, platform.StepStop, platform.StepShred}, Writes: []string{p.Machine.Files(s).Dir()}}
	for name := range p.Own.Blueprint.Keys {
		out.Reads = append(out.Reads, p.Machine.Files(p.Own).PublicKey(name))
	}
	out.Reads = append(out.Reads, p.Machine.Files(s).PlaneRoots(), p.Settings.AWS.DatabaseCA)
	if err := reaches(&out, d.Environ); err != nil {
		return none, err
	}
	if out.Config, err = json.Marshal(d); err != nil {
		return none, err
	}
	if len(images) == 0 {
		return out, nil
	}
	// Known before it runs: a set that is stopped is rendered with what it ran last.
	return out, p.State.SetRuns(s.Name(), r.String(), s.Blueprint.Digest)
}

// imagesOf are those that the process may have the set run: the release's, and what the set ran last.
func (p *Platform) imagesOf(s platform.Set, r platform.Release) (map[string]string, error) {
	out := map[string]string{}
	if ran, err := platform.ParseRelease(p.State.Runs()[s.Name()]); err == nil {
		if key := imageKey(s.Blueprint, ran); p.State.Images()[key] != "" {
			out[key] = p.State.Images()[key]
		}
	}
	key := imageKey(s.Blueprint, r)
	if key == "" {
		return out, nil
	}
	var err error
	out[key], err = p.imageOf(s.Blueprint, r)
	return out, err
}

// reaches adds to what a process may how it reaches AWS, and to its environment what says so.
func reaches(d *platform.Delegation, environ map[string]string) error {
	const tls, names = 443, 53
	d.Ports = append(d.Ports, tls, names)
	d.Reads = append(d.Reads, authorities...)
	for _, kv := range os.Environ() {
		name, value, _ := strings.Cut(kv, "=")
		if value == "" || !slices.Contains(reach, name) && !strings.HasPrefix(name, endpoint) {
			continue
		}
		environ[name] = value
		switch {
		case name == bundle, strings.HasPrefix(name, "SSL_CERT_"):
			d.Reads = append(d.Reads, filepath.SplitList(value)...)
		case strings.HasPrefix(name, endpoint), strings.HasSuffix(strings.ToUpper(name), "_PROXY") && !strings.EqualFold(name, "NO_PROXY"):
			port, err := portOf(value)
			if err != nil {
				return fmt.Errorf("%s names no place that can be connected to: %w", name, err)
			}
			d.Ports = append(d.Ports, port)
		}
	}
	return nil
}

// portOf is the port that a URL leads to, or a host and port, as a proxy may be named.
func portOf(text string) (uint16, error) {
	if !strings.Contains(text, "://") {
		text = "http://" + text
	}
	u, err := url.Parse(text)
	if err != nil {
		return 0, fmt.Errorf("%q is no URL", text)
	}
	port := map[string]string{"https": "443", "http": "80", "socks5": "1080"}[u.Scheme]
	n, err := strconv.ParseUint(cmp.Or(u.Port(), port), 10, 16)
	if err != nil {
		return 0, fmt.Errorf("%s has no port", u.Redacted())
	}
	return uint16(n), nil
}

// keysOf are those of a session that begins now and reaches one tenant's alone.
func (p *Platform) keysOf(ctx context.Context, s platform.Set) (stack.Place, sdk.Credentials, error) {
	place, err := p.placeOf(ctx, s)
	if err != nil {
		return place, sdk.Credentials{}, err
	}
	own, err := taken(ctx, p.cfg, place, s.Tenant.String(), session.ForTenant)
	if err != nil {
		return place, sdk.Credentials{}, err
	}
	keys, err := own.Credentials.Retrieve(ctx)
	return place, keys, err
}

// askSession is what the process asks for when the session that it has is about to end: another. All that it asks for besides is askMaking.
const askSession = "session"

// Answer implements platform.Doorkeeper.
func (p *Platform) Answer(ctx context.Context, s platform.Set, r platform.Release, step string, call json.RawMessage) (platform.Answer, error) {
	var none platform.Answer
	var do string
	if err := json.Unmarshal(call, &do); err != nil || do != askSession && do != askMaking || s.Tenant.IsZero() {
		return none, fmt.Errorf("refused to who works on %s: it is given another session of that tenant's, and services that its stack lacks, and nothing else", s.Name())
	}
	if do == askMaking {
		changed, err := p.make(ctx, s, r, step)
		return platform.Answer{Changed: changed}, err
	}
	_, keys, err := p.keysOf(ctx, s)
	if err != nil {
		return none, err
	}
	text, err := json.Marshal(keys)
	return platform.Answer{Given: text}, err
}

// handedOver are the keys that this process was given, and whenever they are about to end others, which it asks for.
func (d *delegation) handedOver(door platform.Door) sdk.CredentialsProvider {
	first := sdk.Credentials{AccessKeyID: d.Environ[keyVariable], SecretAccessKey: d.Environ[secretVariable], SessionToken: d.Environ[tokenVariable], CanExpire: true, Expires: d.Ends}
	taken := false
	return sdk.NewCredentialsCache(sdk.CredentialsProviderFunc(func(ctx context.Context) (sdk.Credentials, error) {
		// Asked once more before they end, it is for what takes longer than they last (session.Fresh).
		if !taken && !first.Expired() {
			taken = true
			return first, nil
		}
		var next sdk.Credentials
		answer, err := door(ctx, json.RawMessage(`"`+askSession+`"`))
		if err == nil {
			err = json.Unmarshal(answer.Given, &next)
		}
		if err != nil {
			return next, fmt.Errorf("the session at AWS in which this tenant is worked on ends, and there is no other: %w", err)
		}
		return next, nil
	}))
}

// Delegated implements platform.Platform.
func (p *Platform) Delegated(s platform.Set, r platform.Release, step string) error {
	return p.Machine.Delegated(s, r, step)
}

// OpenDelegated opens the platform in a process that got it delegated: it is the tenant's session at AWS, and has one set's files.
func OpenDelegated(config json.RawMessage, door platform.Door) (*Platform, error) {
	var d delegation
	if err := json.Unmarshal(config, &d); err != nil {
		return nil, fmt.Errorf("read what was delegated: %w", err)
	}
	for name, value := range d.Environ {
		if err := os.Setenv(name, value); err != nil {
			return nil, err
		}
	}
	machine, err := local.OpenLent(d.Settings, d.State)
	if err != nil {
		return nil, err
	}
	p := &Platform{Settings: d.Settings, State: d.State, Own: machine.Own, Machine: machine, where: d.Where, lent: d.handedOver(door), door: door, Note: func(text string) { slog.Warn(text) }}
	machine.Places = p
	return p, nil
}
