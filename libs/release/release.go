// Package release is what a release is, and the proof of who made it. It promises that a manifest which opens was signed, byte for
// byte, by a key that is trusted, for the plane that asks, and is whole: every digest named, nothing twice. It is signed as
// package dsse does, with keys whose names carry the plane. It relies on its callers to keep the first of a version, and to compare artefacts with their digests.
package release

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"buf.build/go/protovalidate"
	"golang.org/x/mod/semver"
	"google.golang.org/protobuf/proto"

	registryv1 "a3os.app/proto/gen/go/a3os/registry/v1"
)

// Development is the version of whatever was built and not released. It is no promise of anything: there are many of it, told apart
// by their digests alone, and a plane `prod` takes none.
const Development = "0.0.0-dev"

// Digest is the SHA-256 of some bytes, `sha256:…`.
func Digest(content []byte) string {
	sum := sha256.Sum256(content)
	return "sha256:" + hex.EncodeToString(sum[:])
}

// Name is how a release is written: `version@sha256:…`. The zero Name is that of no release.
type Name struct {
	// Version as semver.org says, without build metadata.
	Version string
	// Digest of the one artefact, or of the manifest where there are several.
	Digest string
}

var digest = regexp.MustCompile(`^sha256:[0-9a-f]{64}$`)

// ErrByTag is what a release is refused with that is named by a tag, which can be moved, and not by its digest.
var ErrByTag = errors.New("it is named by a tag alone, and tags can be moved: name it VERSION@sha256:… with all 64 digits (fleet release list)")

// ParseName reads `version@sha256:…`. A version alone is ErrByTag.
func ParseName(text string) (Name, error) {
	version, sum, ok := strings.Cut(text, "@")
	switch {
	case !ok:
		return Name{}, fmt.Errorf("release %q: %w", text, ErrByTag)
	case !isVersion(version):
		return Name{}, fmt.Errorf("release %q: %q is not a version as semver.org says, as 1.4.0", text, version)
	case !digest.MatchString(sum):
		return Name{}, fmt.Errorf("release %q: %q is not a digest, sha256: and 64 digits of hexadecimal", text, sum)
	}
	return Name{Version: version, Digest: sum}, nil
}

func (n Name) String() string {
	if n == (Name{}) {
		return ""
	}
	return n.Version + "@" + n.Digest
}

// isVersion accepts what semver.org does, without build metadata: two versions that differ in it alone would be one.
func isVersion(v string) bool {
	return semver.IsValid("v"+v) && semver.Build("v"+v) == "" && semver.Canonical("v"+v) == "v"+v
}

// Compare orders versions, as semver.org says. One that isn't any is before all others.
func Compare(a, b string) int { return semver.Compare("v"+a, "v"+b) }

// NameOf is a manifest's name.
func NameOf(m *registryv1.ReleaseManifest) (Name, error) {
	if a := m.GetArtefacts(); len(a) == 1 {
		return Name{Version: m.GetVersion(), Digest: a[0].GetDigest()}, nil
	}
	raw, err := encode(m)
	if err != nil {
		return Name{}, err
	}
	return Name{Version: m.GetVersion(), Digest: Digest(raw)}, nil
}

func encode(m *registryv1.ReleaseManifest) ([]byte, error) {
	raw, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("encode the release: %w", err)
	}
	return raw, nil
}

// Check says what of a manifest is missing or can't be.
func Check(m *registryv1.ReleaseManifest) error {
	if err := protovalidate.Validate(m); err != nil {
		if ve, ok := errors.AsType[*protovalidate.ValidationError](err); ok && len(ve.Violations) > 0 {
			v := ve.Violations[0]
			return fmt.Errorf("%s of the release: %s", protovalidate.FieldPathString(v.Proto.GetField()), cmp.Or(v.Proto.GetMessage(), "it is not what it may be"))
		}
		return fmt.Errorf("the release is not whole: %w", err)
	}
	if !isVersion(m.GetVersion()) {
		return fmt.Errorf("version %q is not a version as semver.org says, as 1.4.0", m.GetVersion())
	}
	if m.GetVersion() == Development && m.GetPlane() != "dev" {
		return fmt.Errorf("version %s is what was built and never released: plane %s takes none", Development, m.GetPlane())
	}
	for what, v := range map[string]string{"minimum version": m.GetMinimumVersion(), "oldest compatible version": m.GetOldestCompatible()} {
		if v != "" && !isVersion(v) {
			return fmt.Errorf("the %s %q is not a version as semver.org says, as 1.4.0", what, v)
		}
		if Compare(v, m.GetVersion()) > 0 {
			return fmt.Errorf("the %s %s is later than the release itself, %s", what, v, m.GetVersion())
		}
	}
	if twice, ok := repeated(m.GetArtefacts(), (*registryv1.Artefact).GetName); ok {
		return fmt.Errorf("artefact %s is named twice", twice)
	}
	if twice, ok := repeated(m.GetMigrations(), (*registryv1.Migration).GetName); ok {
		return fmt.Errorf("migration %s is named twice", twice)
	}
	return nil
}

func repeated[T any](of []T, name func(T) string) (string, bool) {
	names := make([]string, 0, len(of))
	for _, x := range of {
		if slices.Contains(names, name(x)) {
			return name(x), true
		}
		names = append(names, name(x))
	}
	return "", false
}

// CanUpgrade says why a set that runs one release can't be brought to another, or nil. The database is migrated while the earlier programs
// serve, and they are what is gone back to: both need them to work with what it becomes.
func CanUpgrade(from Name, to *registryv1.ReleaseManifest) error {
	if lowest := to.GetMinimumVersion(); lowest != "" && Compare(from.Version, lowest) < 0 {
		return fmt.Errorf("release %s is upgraded to from %s or later, and the set runs %s: bring it to %s first", to.GetVersion(), lowest, from.Version, lowest)
	}
	if oldest := to.GetOldestCompatible(); oldest != "" && Compare(from.Version, oldest) < 0 {
		return fmt.Errorf("release %s, which the set runs, can't work with the database of %s, nor be gone back to: the oldest that can is %s, bring it to that first", from.Version, to.GetVersion(), oldest)
	}
	if Compare(from.Version, to.GetVersion()) > 0 {
		return fmt.Errorf("release %s is earlier than %s, which the set runs: that would be a downgrade", to.GetVersion(), from.Version)
	}
	return nil
}

// CanDowngrade says why a set that runs one release can't go back to another, or nil. The database stays as it is, so the earlier
// programs must work with it.
func CanDowngrade(from *registryv1.ReleaseManifest, to Name) error {
	if Compare(to.Version, from.GetVersion()) > 0 {
		return fmt.Errorf("release %s is later than %s, which the set runs: that would be an upgrade", to.Version, from.GetVersion())
	}
	if oldest := from.GetOldestCompatible(); oldest != "" && Compare(to.Version, oldest) < 0 {
		return fmt.Errorf("release %s can't work with the database of %s: the oldest that can is %s", to.Version, from.GetVersion(), oldest)
	}
	return nil
}
