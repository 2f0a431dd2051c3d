package systemtest

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
)

// envSeed repeats the random bytes of a run: what it printed.
const envSeed = "A3_SEED"

// protocols are the content types that a service takes, each with how a message is framed in it.
func protocols(m rpcMethod) map[string]func([]byte) []byte {
	framed := func(raw []byte) []byte {
		return append(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(raw))), raw...)
	}
	own := func(raw []byte) []byte { return frame(m, raw) }
	return map[string]func([]byte) []byte{
		contentType(m, "json"): own, contentType(m, "proto"): own,
		"application/grpc": framed, "application/grpc+json": framed,
		"application/grpc-web": framed, "application/grpc-web+json": framed,
		"application/grpc-web-text": func(raw []byte) []byte { return []byte(base64.StdEncoding.EncodeToString(framed(raw))) },
	}
}

// blame is what is wrong with the answer to bytes that nobody should have sent: that it is the server's fault, or that there is none.
func (c caller) blame(t testing.TB, path, contentType string, body []byte) string {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, c.base+path, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header = c.header.Clone()
	req.Header.Set("Content-Type", contentType)
	req.Header.Set("Te", "trailers")
	res, err := c.http.Do(req)
	if err != nil {
		return err.Error()
	}
	defer res.Body.Close()
	raw, err := io.ReadAll(io.LimitReader(res.Body, 1<<20))
	if err != nil {
		return err.Error()
	}
	const unknown, internal = "2", "13"
	status := res.Trailer.Get("Grpc-Status")
	if status == "" {
		status = res.Header.Get("Grpc-Status")
	}
	text := strings.ToLower(string(raw))
	// Of a single message Connect answers this by itself: of a compressed one without compression as gRPC's specification demands
	// (doc/compression.md), and of bytes too many or too few in the same manner. The services' own words are never among them.
	for _, protocol := range []string{"sent compressed message without compression support", "extra bytes after end of stream", "incomplete envelope", "bytes in enveloped message, got "} {
		if res.StatusCode == http.StatusOK && strings.Contains(text+res.Header.Get("Grpc-Message")+res.Trailer.Get("Grpc-Message"), protocol) {
			return ""
		}
	}
	switch {
	case res.StatusCode >= http.StatusInternalServerError:
		return fmt.Sprintf("%d %.200s", res.StatusCode, raw)
	case status == unknown || status == internal:
		return "grpc-status " + status + " " + res.Trailer.Get("Grpc-Message") + res.Header.Get("Grpc-Message")
	case strings.Contains(text, `"code":"internal"`), strings.Contains(text, `"code":"unknown"`), strings.Contains(text, "grpc-status: 13\r"), strings.Contains(text, "grpc-status: 2\r"):
		return fmt.Sprintf("%.200s", raw)
	}
	return ""
}

// Row X59: random bytes at every method of a tenant, in every protocol, through the gateway and past it.
func TestRandomBytesAreTheCallersFault(t *testing.T) {
	full(t)
	t.Parallel()
	seed := uint64(time.Now().UnixNano())
	if s := os.Getenv(envSeed); s != "" {
		var err error
		if seed, err = strconv.ParseUint(s, 10, 64); err != nil {
			t.Fatalf("%s: %v", envSeed, err)
		}
	}
	t.Logf("%s=%d repeats these bytes", envSeed, seed)
	random := rand.New(rand.NewPCG(seed, seed))
	noise := func(most int) []byte {
		b := make([]byte, 1+random.IntN(most))
		for i := range b {
			b[i] = byte(random.Uint32())
		}
		return b
	}
	held := hold(t)
	token := acme().admin(t).token(t, acme().operations(t))
	cases := 0
	for _, m := range methods(t) {
		ways := map[string]caller{"past the gateway": past(t, acme(), m.component).bearer(token)}
		if m.routed() {
			ways["through the gateway"] = through(t, acme()).bearer(token)
		}
		for contentType, framed := range protocols(m) {
			bodies := [][]byte{
				noise(2000), framed(noise(2000)), framed([]byte(`{"` + base64.StdEncoding.EncodeToString(noise(100)) + `":` + strconv.Itoa(random.Int()) + `}`)),
				append([]byte{0, 0xff, 0xff, 0xff, 0xff}, noise(100)...), append([]byte{byte(random.Uint32())}, framed(noise(100))...),
				framed(append(protowire.AppendVarint(protowire.AppendTag(nil, 1, protowire.BytesType), 100<<20), noise(100)...)),
			}
			for way, c := range ways {
				for i, body := range bodies {
					cases++
					if wrong := c.blame(t, m.path(), contentType, body); wrong != "" {
						t.Errorf("%s, as %s, %s, bytes %d of seed %d: %s", m.path(), contentType, way, i, seed, wrong)
					}
				}
			}
		}
	}
	held.same(t)
	t.Attr("row", fmt.Sprintf("X59 %d", cases))
}

// Row X57, in every protocol.
func TestDeepNestingIsTheCallersFaultInEveryProtocol(t *testing.T) {
	full(t)
	t.Parallel()
	const depth = 10_000
	group := func(kind protowire.Type) []byte { return protowire.AppendTag(nil, 1000, kind) }
	json := []byte(strings.Repeat(`{"a":`, depth) + "1" + strings.Repeat("}", depth))
	groups := append(bytes.Repeat(group(protowire.StartGroupType), depth), bytes.Repeat(group(protowire.EndGroupType), depth)...)
	held := hold(t)
	token := acme().admin(t).token(t, acme().operations(t))
	cases := 0
	for _, m := range methods(t) {
		c := past(t, acme(), m.component).bearer(token)
		for contentType, framed := range protocols(m) {
			body := groups
			if strings.HasSuffix(contentType, "json") {
				body = json
			}
			cases++
			if wrong := c.blame(t, m.path(), contentType, framed(body)); wrong != "" {
				t.Errorf("%s, nested in %s: %s", m.path(), contentType, wrong)
			}
		}
	}
	held.same(t)
	t.Attr("row", fmt.Sprintf("X57 %d", cases))
}

// processesHeld are the gateway and acme's processes, and the memory that each had.
type processesHeld struct {
	pids   map[string]int
	memory map[string]int64
}

func hold(t *testing.T) processesHeld {
	t.Helper()
	h := processesHeld{pids: map[string]int{}, memory: map[string]int64{}}
	for process, pid := range shared.pids(t) {
		if strings.HasPrefix(process, acme().id+"/") || process == "plane/gateway" {
			h.pids[process], h.memory[process] = pid, resident(t, pid)
		}
	}
	return h
}

// same fails the test where a process ended meanwhile, or holds far more memory.
func (h processesHeld) same(t *testing.T) {
	t.Helper()
	const most = 128 << 20
	now := shared.pids(t)
	for process, pid := range h.pids {
		if now[process] != pid {
			t.Errorf("%s ended of it", process)
			continue
		}
		if grown := resident(t, pid) - h.memory[process]; grown > most {
			t.Errorf("the memory of %s grew by %d MB", process, grown>>20)
		}
	}
}
