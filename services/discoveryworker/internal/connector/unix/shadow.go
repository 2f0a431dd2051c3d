package unix

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// shadow is a line of the shadow file. Days are since 1970-01-01; -1 means that the field is empty.
type shadow struct {
	password                           string
	changed, maximum, inactive, expiry int64
}

const shadowFile = "/etc/shadow"

// readShadow adds what the shadow file says to the accounts, or names it as a gap.
func (m *machine) readShadow(g *graph) {
	content, err := m.read(shadowFile)
	if err != nil {
		g.gap(ScopeLogins, why(shadowFile, err)+": which accounts are locked or expired is not known")
		return
	}
	seen := map[string]bool{}
	for number, line := range numbered(string(content)) {
		f := strings.Split(line, ":")
		if len(f) != 9 {
			g.gap(ScopeLogins, fmt.Sprintf("/etc/shadow:%d: is not a line of nine fields", number))
			continue
		}
		a, ok := m.byName[f[0]]
		if !ok || seen[f[0]] {
			continue
		}
		seen[f[0]] = true
		s := &shadow{password: f[1]}
		days := []struct {
			text string
			into *int64
		}{{f[2], &s.changed}, {f[4], &s.maximum}, {f[6], &s.inactive}, {f[7], &s.expiry}}
		bad := false
		for _, d := range days {
			*d.into = -1
			if d.text == "" {
				continue
			}
			v, err := strconv.ParseInt(d.text, 10, 64)
			if err != nil {
				bad = true
				break
			}
			*d.into = v
		}
		if bad {
			g.gap(ScopeLogins, fmt.Sprintf("/etc/shadow:%d: a date is no number", number))
			continue
		}
		a.shadow = s
	}
	for _, a := range m.accounts {
		a.shadowRead = true
	}
}

// passwordState is what can be done with the account's password: `set`, `locked`, `empty` or, where it can't be known, `unknown`.
func (a *account) passwordState() string {
	password := a.password
	if password == "x" {
		switch {
		case !a.shadowRead:
			return "unknown"
		case a.shadow == nil:
			// A password that is said to be in the shadow file and isn't opens nothing.
			return "locked"
		}
		password = a.shadow.password
	}
	switch {
	case password == "":
		return "empty"
	case password[0] == '!' || password[0] == '*':
		return "locked"
	}
	return "set"
}

// expired says that the account is past its date, or its password so long past its own that the account is closed: the rules of
// pam_unix's account management.
func (a *account) expired(now time.Time) bool {
	s := a.shadow
	if s == nil {
		return false
	}
	today := now.Unix() / (24 * 60 * 60)
	if s.expiry >= 0 && today >= s.expiry {
		return true
	}
	if s.changed <= 0 || s.maximum < 0 || s.inactive < 0 {
		return false
	}
	age := today - s.changed
	return age > s.maximum && age > s.inactive && age > s.maximum+s.inactive
}

// status is how the account stands: `expired`, `locked`, `nologin`, `active`, or "" where the shadow file would have to say and
// could not be read.
func (a *account) status(now time.Time) string {
	switch state := a.passwordState(); {
	case a.expired(now):
		return "expired"
	case state == "locked":
		return "locked"
	case !a.canLogIn():
		return "nologin"
	case state == "unknown":
		return ""
	}
	return "active"
}
