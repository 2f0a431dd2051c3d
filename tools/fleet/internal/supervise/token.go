package supervise

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/google/renameio/v2"
)

// Whoever can open the control socket may be a process that carries out one tenant's steps as the same user: the socket's mode tells
// them not apart. So whoever asks shows the control key, which such a process can't read, or a token that the key made for one group.

func (d Dir) keyFile() string { return filepath.Join(string(d), "control.key") }

// key is what opens the whole control socket. The supervisor makes it once.
func (d Dir) key() (string, error) {
	raw, err := os.ReadFile(d.keyFile())
	return strings.TrimSpace(string(raw)), err
}

func (d Dir) makeKey() (string, error) {
	if key, err := d.key(); err == nil && key != "" || err != nil && !errors.Is(err, fs.ErrNotExist) {
		return key, err
	}
	key := rand.Text()
	return key, renameio.WriteFile(d.keyFile(), []byte(key+"\n"), 0o600, renameio.WithTempDir(string(d)))
}

// Allowance is what the holder of a token may: see and stop the units of one group, and start such units of it as are said here. The
// supervisor may be root's, and a unit names whom it runs as and which file takes its words: without bounds a token would be root's.
type Allowance struct {
	Group string `json:"group"`
	// Units are those that may be started, each as it is said here and not otherwise. Of one without a Path, whoever starts it says Path, Args,
	// Env, Dir and User, within Programs, Dirs and Users.
	Units []Unit `json:"units,omitempty"`
	// Users are the ids that such a unit may run as, by user, group and further groups. Where there is none, it runs as the supervisor does.
	Users []uint32 `json:"users,omitempty"`
	// Programs are directories that its program may be in, at any depth; Dirs those that it may run in.
	Programs []string `json:"programs,omitempty"`
	Dirs     []string `json:"dirs,omitempty"`
	// Until is when the token ends, in seconds since 1970.
	Until int64 `json:"until"`
}

// TokenFor makes a token that lets its holder do what is allowed and nothing else, until a time.
func (d Dir) TokenFor(a Allowance, until time.Time) (string, error) {
	key, err := d.key()
	if err != nil {
		return "", fmt.Errorf("read the supervisor's control key: %w", err)
	}
	a.Until = until.Unix()
	text, err := json.Marshal(a)
	if err != nil {
		return "", err
	}
	said := base64.RawURLEncoding.EncodeToString(text)
	return said + "." + sign(key, said), nil
}

func sign(key, said string) string {
	mac := hmac.New(sha256.New, []byte(key))
	mac.Write([]byte("allowance." + said))
	return hex.EncodeToString(mac.Sum(nil))
}

// caller is what whoever asks may: everything, or what a token allows.
type caller struct {
	all bool
	Allowance
}

// errStranger is who shows neither the key nor a token that it made.
var errStranger = errors.New("the control key, or a token for one group, is missing")

// whoAsks reads it from a request.
func whoAsks(key string, r *http.Request, now time.Time) (caller, error) {
	shown, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	if !ok || key == "" {
		return caller{}, errStranger
	}
	if subtle.ConstantTimeCompare([]byte(shown), []byte(key)) == 1 {
		return caller{all: true}, nil
	}
	said, mac, ok := strings.Cut(shown, ".")
	if !ok || subtle.ConstantTimeCompare([]byte(mac), []byte(sign(key, said))) != 1 {
		return caller{}, errStranger
	}
	var c caller
	text, err := base64.RawURLEncoding.DecodeString(said)
	if err != nil || json.Unmarshal(text, &c.Allowance) != nil || c.Group == "" {
		return caller{}, errStranger
	}
	if until := time.Unix(c.Until, 0); !now.Before(until) {
		return caller{}, fmt.Errorf("the token for %s ended at %s", c.Group, until.UTC().Format(time.RFC3339))
	}
	return c, nil
}

// may refuses what is another group's.
func (c caller) may(group, unit string) error {
	if c.all || c.Group != "" && group == c.Group && below(unit, []string{c.Group}) && unit != c.Group {
		return nil
	}
	return fmt.Errorf("%s is not of %s: whoever works on one tenant reaches no other", unit, c.Group)
}

// mayStart refuses a unit that is another group's, or that is not one of those that the token says. Whatever a Unit comes to say besides is
// refused until it is said there too.
func (c caller) mayStart(u Unit) error {
	if err := c.may(u.Group, u.Name); err != nil || c.all {
		return err
	}
	refuse := func(what string) error {
		return fmt.Errorf("%s of %s is not what whoever works on tenant %s may start: %s", u.Name, u.Group, c.Group, what)
	}
	at := slices.IndexFunc(c.Units, func(is Unit) bool { return is.Name == u.Name })
	if at < 0 {
		return refuse("its release has none of that name")
	}
	want := c.Units[at]
	if want.Path == "" {
		if what := c.outside(u); what != "" {
			return refuse(what)
		}
		want.Path, want.Args, want.Env, want.Dir, want.User = u.Path, u.Args, u.Env, u.Dir, u.User
	}
	if others := u.differs(want); len(others) > 0 {
		return refuse("it has another " + strings.Join(others, ", ") + " than its release says")
	}
	return nil
}

// outside says, in words, what of a unit is none of the tenant's, of that which whoever starts it says; empty where all is.
func (c caller) outside(u Unit) string {
	if (u.User == nil) != (len(c.Users) == 0) {
		return "its user is none of the tenant's"
	}
	if u.User != nil {
		for _, id := range append([]uint32{u.User.UID, u.User.GID}, u.User.Groups...) {
			if id == 0 || !slices.Contains(c.Users, id) {
				return fmt.Sprintf("user or group %d is none of the tenant's", id)
			}
		}
	}
	switch {
	case !below(u.Path, c.Programs):
		return "the program " + u.Path + " is not in its release"
	case !below(u.Dir, c.Dirs):
		return "the directory " + u.Dir + " is not its own"
	}
	return ""
}

// below says whether a path, by its letters, is one of some directories or in one.
func below(path string, dirs []string) bool {
	return path == filepath.Clean(path) && slices.ContainsFunc(dirs, func(dir string) bool {
		return path == dir || strings.HasPrefix(path, dir+string(os.PathSeparator))
	})
}
