"""What ``fastlstm bench`` does: cases, contestants, the machine's ceilings, slots of time, reports.

=================  ===============================================================================
cases              the grid of sizes
case               one line of it; operations and bytes
work               what a layer of each cell multiplies
problem            one case with its weights and inputs; what a contestant hands back
contestants        fastlstm's own calls, the peers that are installed, and whether they agree
peer_*             one other system each; nothing is imported before it is asked for
onnx_graph         the model that ONNX Runtime and OpenVINO read
ceilings           arithmetic peak and read bandwidth of this machine, and the roofline of a case
measure            slots of time, interleaved, with a probe of the clock around each
report             rows, JSON
tables             what is printed: ceilings, what the columns mean, a table for each group
stored             JSON files read back and checked
compare            two of them, side by side
plots              the picture
page               a page in Markdown out of kept files
processors         the name of this machine's processor
command            the options of the command line
=================  ===============================================================================

Importing fastlstm imports none of it.
"""
