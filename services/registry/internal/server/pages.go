package server

import (
	"encoding"
	"fmt"
	"strconv"
	"strings"
	"time"

	"a3os.app/libs/page"
)

// Page tokens of the registry's lists are the last row's place in the list's order: what it is ordered by, as text with dots between, and
// times as microseconds. They are not sealed, as those of a tenant's services are: the lists are of operators, who may read every row.

// pageToken is the token of the page that begins after this place.
func pageToken(place ...any) string {
	var parts []string
	for _, p := range place {
		if at, ok := p.(time.Time); ok {
			p = at.UnixMicro()
		}
		parts = append(parts, fmt.Sprint(p))
	}
	return strings.Join(parts, ".")
}

// readPageToken reads a token into a place, pointers to what pageToken was given. An empty token leaves them as they are: the first page.
// Fails with page.ErrToken.
func readPageToken(token string, place ...any) error {
	if token == "" {
		return nil
	}
	parts := strings.Split(token, ".")
	if len(parts) != len(place) {
		return page.ErrToken
	}
	for i, into := range place {
		if !readPart(parts[i], into) {
			return page.ErrToken
		}
	}
	return nil
}

func readPart(part string, into any) bool {
	switch into := into.(type) {
	case *string:
		*into = part
		return part != "" && !strings.Contains(part, "\x00") // which PostgreSQL's text has not
	case *int64:
		n, err := strconv.ParseInt(part, 10, 64)
		*into = n
		return err == nil
	case *time.Time:
		n, err := strconv.ParseInt(part, 10, 64)
		*into = time.UnixMicro(n)
		return err == nil && n >= 0 && into.Before(never)
	case encoding.TextUnmarshaler:
		return part != "" && into.UnmarshalText([]byte(part)) == nil
	}
	return false
}

// never is after every time that a row can have: the first page of a list that begins with the newest begins there.
var never = time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC)

// onePage are the rows of one page, of rows that one more than size was asked for, and the token of the next one; empty where there is none.
func onePage[R any](rows []R, size int32, token func(last R) string) ([]R, string) {
	if len(rows) <= int(size) {
		return rows, ""
	}
	return rows[:size], token(rows[size-1])
}
