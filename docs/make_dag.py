"""Write the graph of the pipeline into both READMEs, from what `dvc dag` reports.

python -m docs.make_dag
"""

import re
import subprocess
from pathlib import Path

import networkx as nx

READMES = Path("README.md"), Path("README.es.md")
BLOCK = re.compile(r"```mermaid\n.*?```\n", re.DOTALL)


def main() -> None:
    diagram = f"```mermaid\n{mermaid()}```\n"
    for path in READMES:
        path.write_text(BLOCK.sub(lambda _: diagram, path.read_text("utf-8")), "utf-8")


def mermaid() -> str:
    """Return the stages as a Mermaid flowchart, without the edges that others imply."""
    command = ["dvc", "dag", "--mermaid"]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    names = dict(re.findall(r'(node\d+)\["(?:.*:)?(.+)"\]', output))
    edges = re.findall(r"(node\d+)-->(node\d+)", output)
    graph = nx.DiGraph([(names[source], names[target]) for source, target in edges])
    reduced = nx.transitive_reduction(graph)
    order = list(nx.lexicographical_topological_sort(reduced))
    lines = ["flowchart LR"]
    for number, stage in enumerate(order, 1):
        lines.append(f'    node{number}["{stage}"]')
    for number, stage in enumerate(order, 1):
        targets = sorted(order.index(target) + 1 for target in reduced[stage])
        lines.append(f"    node{number} --> {' & '.join(f'node{target}' for target in targets)}")
    return "\n".join(lines[:-1]) + "\n"  # the last stage has no arrow


if __name__ == "__main__":
    main()
