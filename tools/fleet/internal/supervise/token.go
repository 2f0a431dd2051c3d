package supervise

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
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

// TokenFor makes a token that lets its holder see, start and stop the units of one group, and no other, until a time.
func (d Dir) TokenFor(group string, until time.Time) (string, error) {
	key, err := d.key()
	if err != nil {
		return "", fmt.Errorf("read the supervisor's control key: %w", err)
	}
	return sign(key, group, until.Unix()), nil
}

func sign(key, group string, until int64) string {
	text := group + "." + strconv.FormatInt(until, 10)
	mac := hmac.New(sha256.New, []byte(key))
	mac.Write([]byte("group." + text))
	return text + "." + hex.EncodeToString(mac.Sum(nil))
}

// caller is what whoever asks may: everything, or what is one group's.
type caller struct {
	all   bool
	group string
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
	const parts = 3
	p := strings.Split(shown, ".")
	if len(p) != parts {
		return caller{}, errStranger
	}
	until, err := strconv.ParseInt(p[1], 10, 64)
	if err != nil || subtle.ConstantTimeCompare([]byte(shown), []byte(sign(key, p[0], until))) != 1 {
		return caller{}, errStranger
	}
	if !now.Before(time.Unix(until, 0)) {
		return caller{}, fmt.Errorf("the token for %s ended at %s", p[0], time.Unix(until, 0).UTC().Format(time.RFC3339))
	}
	return caller{group: p[0]}, nil
}

// may refuses what is another group's.
func (c caller) may(group, unit string) error {
	if c.all || c.group != "" && group == c.group && strings.HasPrefix(unit, c.group+"/") {
		return nil
	}
	return fmt.Errorf("%s is not of %s: whoever works on one tenant reaches no other", unit, c.group)
}
