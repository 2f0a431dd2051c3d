package gateway_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// exchange sends octets on a connection of its own and reads until the gateway closes it, or is silent for longer than it would be
// if anything were to come. It answers the status of each answer, and whether the gateway closed.
func (p *process) exchange(octets string) (statuses []int, closed bool) {
	p.h.t.Helper()
	conn := p.raw()
	if _, err := io.WriteString(conn, octets); err != nil {
		p.h.t.Fatal(err)
	}
	r := bufio.NewReader(conn)
	const first, more = 20 * time.Second, time.Second // an answer comes, or the end; of a second one there is no sign
	patience := first
	for {
		_ = conn.SetReadDeadline(time.Now().Add(patience))
		res, err := http.ReadResponse(r, nil)
		if err != nil {
			closed = errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET)
			if !closed && !errors.Is(err, os.ErrDeadlineExceeded) {
				p.h.t.Errorf("after %v comes neither an answer nor the end: %v", statuses, err)
			}
			return statuses, closed
		}
		_, _ = io.Copy(io.Discard, res.Body)
		if res.StatusCode >= http.StatusOK {
			statuses, patience = append(statuses, res.StatusCode), more
		}
	}
}

const smuggled = "GET /smuggled HTTP/1.1\r\nHost: globex.a3.test\r\n\r\n"

// Attack row H17: what the upstream saw is what counts.
func TestUpstreamSeesOneRequestOrNone(t *testing.T) {
	h := newHarness(t)
	acme, globex := h.tenant("acme"), h.tenant("globex")
	g := globex.serve("iam", nil, "/")
	var a *service
	a = acme.serve("iam", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusEarlyHints) // an answer before the answer must not make the gateway forget anything
		_, _ = io.Copy(io.Discard, r.Body)
		a.seen <- r
	}), "/")
	h.publish(acme, globex)
	p := h.start()
	p.until("acme", "/ready", http.StatusOK, "")
	const head = "POST /one HTTP/1.1\r\nHost: acme.a3.test\r\n"
	cases := map[string]string{} // by the path that each asks for
	for name, octets := range map[string]string{
		"two hosts":                     "GET /one HTTP/1.1\r\nHost: acme.a3.test\r\nHost: globex.a3.test\r\n\r\n",
		"two hosts, folded":             "GET /one HTTP/1.1\r\nHost: acme.a3.test\r\n globex.a3.test\r\n\r\n",
		"no host":                       "GET /one HTTP/1.1\r\n\r\n",
		"space before the colon":        "GET /one HTTP/1.1\r\nHost : globex.a3.test\r\nHost: acme.a3.test\r\n\r\n",
		"length and chunks":             head + "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + smuggled,
		"chunks and length":             head + "Transfer-Encoding: chunked\r\nContent-Length: 200\r\n\r\n0\r\n\r\n" + smuggled,
		"chunks of length, long":        head + fmt.Sprintf("Content-Length: %d\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", 15+len(smuggled)) + smuggled,
		"length and chunks, expecting":  head + "Expect: 100-continue\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + smuggled,
		"chunked twice":                 head + "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + smuggled,
		"chunked and identity":          head + "Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n" + smuggled,
		"chunked, misspelt":             head + "Transfer-Encoding: xchunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n" + smuggled,
		"chunked with a vertical tab":   head + "Transfer-Encoding: \vchunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n" + smuggled,
		"chunked, folded":               head + "Transfer-Encoding:\r\n chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n" + smuggled,
		"two lengths":                   head + "Content-Length: 5\r\nContent-Length: 0\r\n\r\n" + smuggled,
		"a list of lengths":             head + "Content-Length: 5, 5\r\n\r\nhello" + smuggled,
		"a length with a sign":          head + "Content-Length: +5\r\n\r\nhello" + smuggled,
		"a negative length":             head + "Content-Length: -1\r\n\r\n" + smuggled,
		"a length in hex":               head + "Content-Length: 0x5\r\n\r\nhello" + smuggled,
		"a length that overflows":       head + "Content-Length: 18446744073709551621\r\n\r\nhello" + smuggled,
		"a chunk that overflows":        head + "Transfer-Encoding: chunked\r\n\r\n10000000000000005\r\nhello\r\n0\r\n\r\n" + smuggled,
		"a chunk ended by a bare LF":    head + "Transfer-Encoding: chunked\r\n\r\n5\nhello\n0\n\n" + smuggled,
		"a chunk extension with bare":   head + "Transfer-Encoding: chunked\r\n\r\n5;a\nb\r\nhello\r\n0\r\n\r\n" + smuggled,
		"a NUL in a header":             head + "X-Nul: a\x00b\r\n\r\n",
		"a bare CR in a header":         head + "X-Cr: a\rHost: globex.a3.test\r\n\r\n",
		"HTTP/1.0 with chunks":          "POST /one HTTP/1.0\r\nHost: acme.a3.test\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + smuggled,
		"HTTP/1.0 with both":            "POST /one HTTP/1.0\r\nHost: acme.a3.test\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n" + smuggled,
		"HTTP/0.9":                      "GET /one\r\n" + smuggled,
		"an absolute target":            "GET https://acme.a3.test/one HTTP/1.1\r\nHost: globex.a3.test\r\n\r\n",
		"a tunnel":                      "CONNECT globex.a3.test:443 HTTP/1.1\r\nHost: acme.a3.test\r\n\r\n" + smuggled,
		"an upgrade to h2c":             "GET /one HTTP/1.1\r\nHost: acme.a3.test\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n\r\n",
		"bare LF for every line":        "GET /one HTTP/1.1\nHost: acme.a3.test\nX-A: b\n\n",
		"obs-fold in another header":    "GET /one HTTP/1.1\r\nHost: acme.a3.test\r\nX-A: b\r\n Host: globex.a3.test\r\n\r\n",
		"a host with a user":            "GET /one HTTP/1.1\r\nHost: acme.a3.test@globex.a3.test\r\n\r\n",
		"a trailer that names the host": head + "Transfer-Encoding: chunked\r\nTrailer: Host, A3-Source-Address\r\n\r\n0\r\nHost: globex.a3.test\r\nA3-Source-Address: 9.9.9.9\r\n\r\n" + smuggled,
	} {
		path := fmt.Sprintf("/%d", len(cases))
		cases[path] = name
		statuses, closed := p.exchange(strings.Replace(octets, "/one", path, 1))
		if len(statuses) > 1 {
			t.Errorf("%s: %d answers, %v", name, len(statuses), statuses)
		}
		// Where more followed, or the gateway refused the bytes, nothing else on that connection may be believed.
		if strings.HasSuffix(octets, smuggled) && !closed || len(statuses) == 1 && statuses[0] == http.StatusBadRequest && !closed {
			t.Errorf("%s: the connection stays open after %v", name, statuses)
		}
	}
	// Requests that were cut arrive at the service late: it is asked when all are over.
	if err := p.stop(); err != nil {
		t.Error(err)
	}
	tried := len(cases)
	for _, s := range []*service{a, g} {
		if err := s.server.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
	}
	for len(g.seen) > 0 {
		r := <-g.seen
		t.Errorf("globex saw %s %s%s", r.Method, r.Host, r.URL)
	}
	for len(a.seen) > 0 {
		r := <-a.seen
		name, asked := cases[r.URL.Path]
		if r.URL.Path == "/ready" {
			continue
		}
		if !asked || r.Host != "acme.a3.test" {
			t.Errorf("%s: acme saw %s %s%s, more than once or never asked for", name, r.Method, r.Host, r.URL)
		}
		delete(cases, r.URL.Path)
	}
	t.Attr("row", fmt.Sprintf("H17 %d", tried))
}

// Who waits for a 100 has it once, and whole beside what the service says before its answer.
func TestContinueAndInterimAnswersComeOneByOne(t *testing.T) {
	h := newHarness(t)
	acme := h.tenant("acme")
	acme.serve("iam", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusEarlyHints)
		_, _ = io.Copy(io.Discard, r.Body)
	}), "/")
	h.publish(acme)
	p := h.start()
	p.until("acme", "/ready", http.StatusOK, "")
	const times = 200
	for i := range times {
		conn := p.raw()
		_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
		if _, err := io.WriteString(conn, "POST /one HTTP/1.1\r\nHost: acme.a3.test\r\nExpect: 100-continue\r\nTransfer-Encoding: chunked\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		r := bufio.NewReader(conn)
		var statuses []int
		for len(statuses) == 0 || statuses[len(statuses)-1] < http.StatusOK {
			res, err := http.ReadResponse(r, nil)
			if err != nil {
				t.Fatalf("exchange %d, after %v: %v", i, statuses, err)
			}
			statuses = append(statuses, res.StatusCode)
			if res.StatusCode == http.StatusContinue {
				if _, err := io.WriteString(conn, "5\r\nhello\r\n0\r\n\r\n"); err != nil {
					t.Fatal(err)
				}
			}
		}
		if fmt.Sprint(statuses) != "[100 103 200]" {
			t.Fatalf("exchange %d was answered %v", i, statuses)
		}
		conn.Close()
	}
}

func TestHonestPipelineIsStillServed(t *testing.T) {
	h := newHarness(t)
	acme := h.tenant("acme")
	a := acme.serve("iam", nil, "/")
	h.publish(acme)
	p := h.start()
	p.until("acme", "/ready", http.StatusOK, "")
	<-a.seen
	one := "POST /one HTTP/1.1\r\nHost: acme.a3.test\r\nContent-Length: 5\r\n\r\nhello"
	statuses, _ := p.exchange(one + one + one)
	if fmt.Sprint(statuses) != "[200 200 200]" || len(a.seen) != 3 {
		t.Errorf("three requests were answered %v, and the service saw %d", statuses, len(a.seen))
	}
}

// HTTP/2 has its own ways to say one thing twice.
func TestAmbiguousHTTP2RequestIsRefused(t *testing.T) {
	h := newHarness(t)
	acme, globex := h.tenant("acme"), h.tenant("globex")
	a, g := acme.serve("iam", nil, "/"), globex.serve("iam", nil, "/")
	h.publish(acme, globex)
	p := h.start()
	p.until("acme", "/ready", http.StatusOK, "")
	<-a.seen
	normal := []hpack.HeaderField{{Name: ":method", Value: "GET"}, {Name: ":scheme", Value: "https"}, {Name: ":path", Value: "/one"}, {Name: ":authority", Value: "acme.a3.test"}}
	for name, more := range map[string][]hpack.HeaderField{
		"a transfer encoding":     {{Name: "transfer-encoding", Value: "chunked"}},
		"a connection header":     {{Name: "connection", Value: "close"}},
		"two authorities":         {{Name: ":authority", Value: "globex.a3.test"}},
		"a path after the rest":   {{Name: "x-a", Value: "b"}, {Name: ":path", Value: "/smuggled"}},
		"a line break in a value": {{Name: "x-a", Value: "b\r\nhost: globex.a3.test"}},
		"a name with a colon":     {{Name: "x-a: b", Value: "c"}},
		"capital letters":         {{Name: "Host", Value: "globex.a3.test"}},
		"another host":            {{Name: "host", Value: "globex.a3.test"}},
	} {
		p.sendHTTP2(append(append([]hpack.HeaderField{}, normal...), more...))
		if len(g.seen) > 0 {
			t.Errorf("%s: globex saw %v", name, (<-g.seen).URL)
		}
		switch len(a.seen) {
		case 0:
		case 1:
			if r := <-a.seen; r.URL.Path != "/one" || r.Host != "acme.a3.test" || r.Header.Get("Host") != "" || r.Header.Get("Transfer-Encoding") != "" {
				t.Errorf("%s: acme saw %s %s %v", name, r.Host, r.URL, r.Header)
			}
		default:
			t.Errorf("%s: acme saw %d requests", name, len(a.seen))
		}
	}
}

// sendHTTP2 sends one request as these fields and waits for its end.
func (p *process) sendHTTP2(fields []hpack.HeaderField) {
	p.h.t.Helper()
	conn := p.rawHTTP2()
	defer conn.Close()
	if _, err := io.WriteString(conn, http2.ClientPreface); err != nil {
		p.h.t.Fatal(err)
	}
	f := http2.NewFramer(conn, conn)
	if err := f.WriteSettings(); err != nil {
		p.h.t.Fatal(err)
	}
	var block strings.Builder
	enc := hpack.NewEncoder(&block)
	for _, field := range fields {
		if err := enc.WriteField(field); err != nil {
			p.h.t.Fatal(err)
		}
	}
	if err := f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: []byte(block.String()), EndStream: true, EndHeaders: true}); err != nil {
		p.h.t.Fatal(err)
	}
	_ = conn.SetReadDeadline(time.Now().Add(5 * time.Second))
	for {
		frame, err := f.ReadFrame()
		if err != nil {
			return
		}
		switch frame := frame.(type) {
		case *http2.RSTStreamFrame, *http2.GoAwayFrame:
			return
		case *http2.HeadersFrame:
			if frame.StreamEnded() {
				return
			}
		case *http2.DataFrame:
			if frame.StreamEnded() {
				return
			}
		}
	}
}
