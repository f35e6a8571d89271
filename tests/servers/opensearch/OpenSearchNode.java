import java.io.IOException;
import java.io.PrintStream;
import java.nio.file.Path;
import java.util.List;
import java.util.Map;

import org.opensearch.common.settings.Settings;
import org.opensearch.env.Environment;
import org.opensearch.http.HttpServerTransport;
import org.opensearch.node.InternalSettingsPreparer;
import org.opensearch.node.Node;
import org.opensearch.transport.Netty4Plugin;

/**
 * A real OpenSearch node without its installation: {@code java -cp 'FOLDER/*' OpenSearchNode HOME [PORT]}.
 *
 * <p>Listens on 127.0.0.1, on a free port when PORT is missing or 0, and prints {@code listening on http://127.0.0.1:PORT}
 * once it answers and has every index that it held before. Its data stay in HOME. It lives no longer than who started it: it stops when its standard input closes,
 * also when the starter was killed. Unlike the packaged server it may run as root: what refuses that is the packaged
 * server's own start, not the node.
 */
public final class OpenSearchNode {

    private OpenSearchNode() {
    }

    public static void main(String[] arguments) throws Exception {
        PrintStream answer = System.out;
        // Errors are logged to the standard output, which whoever started this reads one line of.
        System.setOut(System.err);
        String port = arguments.length > 1 ? arguments[1] : "0";
        Node node = new EmbeddedNode(environment(Path.of(arguments[0]), port)).start();
        // It answers before it has read what it held: with 503 for each index until then.
        node.client().admin().cluster().prepareHealth().setWaitForYellowStatus().setTimeout("60s").get();
        int bound = node.injector().getInstance(HttpServerTransport.class).boundAddress().publishAddress().getPort();
        answer.println("listening on http://127.0.0.1:" + bound);
        waitForEndOfInput();
        // Its log of operations is on the disk with every answer, so there is nothing to close that a start does not mend.
        Runtime.getRuntime().halt(0);
    }

    private static Environment environment(Path home, String port) {
        Settings settings = Settings.builder()
            .put("path.home", home.toString())
            .put("cluster.name", "tests")
            .put("discovery.type", "single-node")
            .put("network.host", "127.0.0.1")
            .put("http.port", port)
            // Nobody joins this cluster, but a node cannot do without the port; any free one will do.
            .put("transport.port", "0")
            // A test's machine may be nearly full, and a replica has nowhere to go.
            .put("cluster.routing.allocation.disk.threshold_enabled", false)
            .put("node.processors", 2)
            .build();
        return InternalSettingsPreparer.prepareEnvironment(settings, Map.of(), null, () -> "test-node");
    }

    /** A node's parts are for its heirs alone. */
    private static final class EmbeddedNode extends Node {
        EmbeddedNode(Environment environment) {
            super(environment, List.of(Netty4Plugin.class), false);
        }
    }

    private static void waitForEndOfInput() throws IOException {
        byte[] ignored = new byte[4096];
        while (System.in.read(ignored) >= 0) {
            continue;
        }
    }
}
